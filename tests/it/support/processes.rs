//! Signals to processes.

use std::{fs, process::Command, time::Duration};

/// Sends it. One that is to stop has stopped when this returns: threads go on for a moment after the signal was sent.
pub(crate) fn signal(name: &str, pid: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), pid]).status();
    assert!(sent.is_ok_and(|status| status.success()), "SIG{name} to {pid}");
    while name == "STOP" && !has_stopped(pid) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn has_stopped(pid: &str) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    threads.flatten().all(|thread| {
        // See proc_pid_stat(5): the state comes after the name, which may hold anything. A thread that ended has none.
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['T', 'Z']))
    })
}
