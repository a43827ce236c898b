//! The findings as a table.

use serde_json::Value;

use super::Finding;

const HEADER: [&str; 6] = ["KIND", "NAMESPACE/NAME", "READY", "REASON", "VERSION", "MESSAGE"];

/// One line for each finding, in columns.
pub(super) fn render(findings: &[Finding]) -> String {
    let rows: Vec<_> = std::iter::once(HEADER.map(str::to_owned)).chain(findings.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..HEADER.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn row(finding: &Finding) -> [String; 6] {
    let version = finding.status.pointer("/server/version").and_then(Value::as_str).unwrap_or("-");
    let cells = [
        finding.kind.clone(),
        format!("{}/{}", finding.namespace, finding.name),
        finding.ready.clone(),
        finding.reason.clone(),
        version.to_owned(),
        finding.message.clone(),
    ];
    // A server chooses its words, and a line break or an escape sequence must not get to the terminal.
    cells.map(|cell| cell.chars().map(|char| if char.is_control() { ' ' } else { char }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_control_characters_do_not_get_through() {
        let finding = |name: &str, message: &str| Finding {
            kind: "Database".to_owned(),
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            ready: "True".to_owned(),
            reason: "Available".to_owned(),
            message: message.to_owned(),
            status: serde_json::json!({ "server": { "version": "15.18" } }),
        };
        let expected = "\
KIND      NAMESPACE/NAME  READY  REASON     VERSION  MESSAGE
Database  shop/a          True   Available  15.18    all checks pass
Database  shop/orders     True   Available  15.18    two lines [31m
";
        let findings = [finding("a", "all checks pass"), finding("orders", "two\nlines\u{1b}[31m")];
        assert_eq!(render(&findings), expected);
    }
}
