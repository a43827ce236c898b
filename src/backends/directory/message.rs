//! LDAP messages (RFC 4511, section 4): those that are sent, and those that come back.

use bytes::Bytes;

use super::{
    ber::{BOOLEAN, ENUMERATED, INTEGER, Malformed, OCTETS, Reader, SEQUENCE, SET, Writer, integer},
    controls::{Control, ResponseControl},
};
use crate::domain::sync::{
    entry::{Attribute, Entry},
    filter::{Comparison, Filter},
};

const BIND: u8 = 0x60;
const BIND_ANSWER: u8 = 0x61;
const UNBIND: u8 = 0x42;
const SEARCH: u8 = 0x63;
const ENTRY: u8 = 0x64;
const DONE: u8 = 0x65;
const REFERENCE: u8 = 0x73;
const EXTENDED: u8 = 0x77;
const EXTENDED_ANSWER: u8 = 0x78;
const INTERMEDIATE: u8 = 0x79;
const CONTROLS: u8 = 0xa0;

/// What no directory is asked for, and what is thrown away if it comes all the same.
const SECRETS: &[&str] = &[
    "userPassword",
    "unicodePwd",
    "sambaNTPassword",
    "sambaLMPassword",
    "krbPrincipalKey",
    "ipaNTHash",
    "dBCSPwd",
];

/// How far a search goes down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// The base alone.
    Base,
    /// What is directly below it.
    One,
    /// All of it.
    #[default]
    Sub,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// The name of the entry where it starts.
    pub base: String,
    /// How far down it goes.
    pub scope: Scope,
    /// Which entries.
    pub filter: Filter,
    /// Which of their attributes; nothing else is taken, whatever the server sends.
    pub attributes: Vec<String>,
    /// How many entries at the most; 0 for any number.
    pub size_limit: u32,
}

/// How somebody logs in.
#[derive(Clone, Copy)]
pub(super) enum Bind<'a> {
    /// By name and password.
    Simple(&'a str, &'a str),
    /// By the certificate of the connection (SASL EXTERNAL; RFC 4422, appendix A).
    External,
}

pub(super) fn bind(id: i32, bind: Bind<'_>, controls: &[Control]) -> Vec<u8> {
    message(id, controls, |writer| {
        writer.nested(BIND, |writer| {
            writer.integer(INTEGER, 3);
            match bind {
                Bind::Simple(name, password) => {
                    writer.octets(OCTETS, name.as_bytes());
                    writer.octets(0x80, password.as_bytes());
                }
                Bind::External => {
                    writer.octets(OCTETS, b"");
                    writer.nested(0xa3, |writer| {
                        writer.octets(OCTETS, b"EXTERNAL");
                        writer.octets(OCTETS, b"");
                    });
                }
            }
        });
    })
}

pub(super) fn unbind(id: i32) -> Vec<u8> {
    message(id, &[], |writer| writer.octets(UNBIND, b""))
}

pub(super) fn extended(id: i32, name: &str) -> Vec<u8> {
    message(id, &[], |writer| writer.nested(EXTENDED, |writer| writer.octets(0x80, name.as_bytes())))
}

pub(super) fn search(id: i32, search: &Search, controls: &[Control]) -> Vec<u8> {
    message(id, controls, |writer| {
        writer.nested(SEARCH, |writer| {
            writer.octets(OCTETS, search.base.as_bytes());
            let scope = match search.scope {
                Scope::Base => 0,
                Scope::One => 1,
                Scope::Sub => 2,
            };
            writer.integer(ENUMERATED, scope);
            // Aliases are never followed: they lead out of what was asked for.
            writer.integer(ENUMERATED, 0);
            writer.integer(INTEGER, i64::from(search.size_limit));
            writer.integer(INTEGER, 0);
            writer.boolean(BOOLEAN, false);
            filter(writer, &search.filter);
            writer.nested(SEQUENCE, |writer| {
                search.attributes.iter().for_each(|name| writer.octets(OCTETS, name.as_bytes()));
                // No name at all would mean all of them (section 4.5.1.8).
                if search.attributes.is_empty() {
                    writer.octets(OCTETS, b"1.1");
                }
            });
        });
    })
}

fn message(id: i32, controls: &[Control], content: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.nested(SEQUENCE, |writer| {
        writer.integer(INTEGER, i64::from(id));
        content(writer);
        if !controls.is_empty() {
            writer.nested(CONTROLS, |writer| controls.iter().for_each(|control| control.write(writer)));
        }
    });
    writer.finish()
}

fn filter(writer: &mut Writer, node: &Filter) {
    match node {
        Filter::And(nodes) => {
            writer.nested(0xa0, |writer| nodes.iter().for_each(|node| filter(writer, node)));
        }
        Filter::Or(nodes) => writer.nested(0xa1, |writer| nodes.iter().for_each(|node| filter(writer, node))),
        Filter::Not(node) => writer.nested(0xa2, |writer| filter(writer, node)),
        Filter::Compare(how, attribute, value) => {
            let tag = match how {
                Comparison::Equal => 0xa3,
                Comparison::AtLeast => 0xa5,
                Comparison::AtMost => 0xa6,
                Comparison::Like => 0xa8,
            };
            writer.nested(tag, |writer| {
                writer.octets(OCTETS, attribute.as_bytes());
                writer.octets(OCTETS, value);
            });
        }
        Filter::Substrings(attribute, initial, any, last) => writer.nested(0xa4, |writer| {
            writer.octets(OCTETS, attribute.as_bytes());
            writer.nested(SEQUENCE, |writer| {
                if let Some(value) = initial {
                    writer.octets(0x80, value);
                }
                for value in any {
                    writer.octets(0x81, value);
                }
                if let Some(value) = last {
                    writer.octets(0x82, value);
                }
            });
        }),
        Filter::Present(attribute) => writer.octets(0x87, attribute.as_bytes()),
        Filter::Extensible { rule, attribute, value, dn } => writer.nested(0xa9, |writer| {
            if let Some(rule) = rule {
                writer.octets(0x81, rule.as_bytes());
            }
            if let Some(attribute) = attribute {
                writer.octets(0x82, attribute.as_bytes());
            }
            writer.octets(0x83, value);
            if *dn {
                writer.boolean(0x84, true);
            }
        }),
    }
}

/// How an operation ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The result code (RFC 4511, appendix A); 0 is success.
    pub code: u32,
    /// What the server says of it.
    pub text: String,
}

/// What came back.
#[derive(Debug)]
pub(super) enum Answer {
    Bound(Outcome),
    Entry(Entry),
    /// Where more is, as URLs.
    Reference(Vec<String>),
    Done(Outcome),
    Extended(Outcome),
    Intermediate {
        name: Option<String>,
        value: Option<Bytes>,
    },
}

/// A message that came back.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) id: i64,
    pub(super) answer: Answer,
    pub(super) controls: Vec<ResponseControl>,
}

impl Message {
    /// Reads a message, and of an entry the attributes that were asked for.
    pub(super) fn read(content: Bytes, attributes: &[String]) -> Result<Self, Malformed> {
        let mut outer = Reader::new(content);
        let id = outer.integer(INTEGER)?;
        let (tag, content) = outer.any()?;
        let answer = match tag {
            ENTRY => Answer::Entry(entry(content, attributes)?),
            DONE => Answer::Done(outcome(&mut Reader::new(content))?),
            BIND_ANSWER => Answer::Bound(outcome(&mut Reader::new(content))?),
            REFERENCE => {
                let (mut reader, mut urls) = (Reader::new(content), Vec::new());
                while !reader.is_empty() {
                    urls.push(text(&reader.expect(OCTETS)?));
                }
                Answer::Reference(urls)
            }
            EXTENDED_ANSWER => Answer::Extended(outcome(&mut Reader::new(content))?),
            INTERMEDIATE => {
                let mut reader = Reader::new(content);
                let name = reader.optional(0x80)?.map(|name| text(&name));
                Answer::Intermediate { name, value: reader.optional(0x81)? }
            }
            _ => return Err(Malformed),
        };
        let controls = match outer.optional(CONTROLS)? {
            Some(content) => ResponseControl::read_all(content)?,
            None => Vec::new(),
        };
        Ok(Self { id, answer, controls })
    }
}

fn outcome(reader: &mut Reader) -> Result<Outcome, Malformed> {
    let code = integer(&reader.expect(ENUMERATED)?)?;
    reader.expect(OCTETS)?;
    let text = text(&reader.expect(OCTETS)?);
    // Where else to ask: never followed, but told of by the code.
    reader.optional(0xa3)?;
    Ok(Outcome { code: u32::try_from(code).map_err(|_| Malformed)?, text })
}

fn entry(content: Bytes, wanted: &[String]) -> Result<Entry, Malformed> {
    let mut reader = Reader::new(content);
    let dn = reader.expect(OCTETS)?;
    let mut list = Reader::new(reader.expect(SEQUENCE)?);
    let mut attributes = Vec::with_capacity(wanted.len());
    while !list.is_empty() {
        let mut parts = Reader::new(list.expect(SEQUENCE)?);
        let mut attribute = Attribute { name: parts.expect(OCTETS)?, values: Vec::new() };
        let content = parts.expect(SET)?;
        if !is_wanted(attribute.base(), wanted) {
            continue;
        }
        let mut values = Reader::new(content);
        while !values.is_empty() {
            attribute.values.push(values.expect(OCTETS)?);
        }
        attributes.push(attribute);
    }
    Ok(Entry { dn, attributes })
}

fn is_wanted(name: &[u8], wanted: &[String]) -> bool {
    let is = |known: &str| name.eq_ignore_ascii_case(known.split(';').next().unwrap_or_default().as_bytes());
    wanted.iter().any(|wanted| is(wanted)) && !SECRETS.iter().any(|secret| is(secret))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::sync::filter::Template;

    fn read(bytes: &[u8], attributes: &[&str]) -> Result<Message, Malformed> {
        let content = Reader::new(Bytes::copy_from_slice(bytes)).expect(SEQUENCE)?;
        let attributes: Vec<_> = attributes.iter().map(|name| (*name).to_owned()).collect();
        Message::read(content, &attributes)
    }

    fn entry_message(attributes: &[(&str, &[&[u8]])]) -> Vec<u8> {
        message(7, &[], |writer| {
            writer.nested(ENTRY, |writer| {
                writer.octets(OCTETS, b"cn=a");
                writer.nested(SEQUENCE, |writer| {
                    for (name, values) in attributes {
                        writer.nested(SEQUENCE, |writer| {
                            writer.octets(OCTETS, name.as_bytes());
                            writer.nested(SET, |writer| {
                                for value in *values {
                                    writer.octets(OCTETS, value);
                                }
                            });
                        });
                    }
                });
            });
        })
    }

    #[test]
    fn of_an_entry_only_what_was_asked_for_is_taken_and_never_a_password() {
        let sent = entry_message(&[
            ("UID", &[b"a"]),
            ("userPassword", &[b"{PBKDF2}x"]),
            ("member;range=0-1", &[b"cn=x", b"\xff"]),
            ("description", &[b"d"]),
        ]);
        let message = read(&sent, &["uid", "member", "userpassword"]).unwrap();
        assert_eq!(message.id, 7);
        let Answer::Entry(entry) = message.answer else { panic!("an entry") };
        assert_eq!(entry.attributes.len(), 2);
        assert_eq!(entry.text("uid"), Some("a"));
        assert_eq!(entry.attributes[1].values[1].as_ref(), b"\xff");
    }

    #[test]
    fn what_ends_in_the_middle_is_refused_wherever_it_ends() {
        let sent = entry_message(&[("uid", &[b"a"])]);
        let whole = Reader::new(sent.clone().into()).expect(SEQUENCE).unwrap();
        for end in 0..whole.len() {
            let cut = whole.slice(..end);
            assert_eq!(Message::read(cut, &["uid".to_owned()]).map(|_| ()), Err(Malformed), "{end}");
        }
        assert!(Message::read(whole, &["uid".to_owned()]).is_ok());
    }

    #[test]
    fn what_nests_without_end_is_refused_without_following_it() {
        let mut nested = vec![4, 0];
        for _ in 0..100_000 {
            let mut outer = vec![0x30, 0x84];
            outer.extend(u32::try_from(nested.len()).unwrap().to_be_bytes());
            // Only the headers matter, so that the test is quick.
            outer.extend(&nested[..nested.len().min(64)]);
            nested = outer;
        }
        let sent = message(1, &[], |writer| {
            writer.nested(ENTRY, |writer| writer.nested(SEQUENCE, |writer| writer.octets(4, &nested)));
        });
        assert_eq!(read(&sent, &[]).map(|_| ()), Err(Malformed));
    }

    #[test]
    fn a_search_is_written_as_the_standard_says() {
        let filter = Template::parse("(&(a=b)(!(c=*))(d=x*y*z)(e:=f))").unwrap().fill(b"");
        let search =
            Search { base: "dc=x".to_owned(), scope: Scope::Sub, filter, attributes: vec![], size_limit: 2 };
        let sent = super::search(5, &search, &[]);
        // By another implementation of the protocol.
        let mut buffer = bytes::BytesMut::from(sent.as_slice());
        let read = tokio_util::codec::Decoder::decode(&mut ldap3_proto::LdapCodec::default(), &mut buffer);
        let Some(ldap3_proto::proto::LdapMsg {
            msgid: 5,
            op: ldap3_proto::proto::LdapOp::SearchRequest(search),
            ..
        }) = read.unwrap()
        else {
            panic!("a search")
        };
        assert_eq!(
            (search.base.as_str(), search.sizelimit, search.attrs),
            ("dc=x", 2, vec!["1.1".to_owned()])
        );
        let filter = format!("{:?}", search.filter);
        for part in
            ["And(", "Equality(\"a\", \"b\")", "Not(Present(\"c\"))", "Substring(\"d\"", "Extensible("]
        {
            assert!(filter.contains(part), "{filter}");
        }
    }
}
