//! Relays the connection phase of the client/server protocol (MySQL source code documentation, "Connection Phase") between driver and
//! server: the driver logs in as if without TLS, and everything that differs with TLS happens here.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

use crate::{
    api::Reason,
    backends::{
        Fault,
        database::{deadline::Deadline, relay::Io, tls::ServerTls},
    },
};

/// Flag `CLIENT_SSL`.
const SSL: u8 = 0x08;

/// Replaces a default plugin that the driver does not know: the server then switches to the account's own.
const NATIVE: &[u8] = b"mysql_native_password";

/// The authentication plugins that the driver implements without TLS.
const SUPPORTED: [&[u8]; 2] = [NATIVE, b"caching_sha2_password"];

/// The plugin for which the password is sent in plain text over TLS.
const SHA256: &[u8] = b"sha256_password";

/// An upper bound for packets of this phase, in bytes.
const MAX_PACKET: usize = 64 * 1024;

/// A packet with its sequence number.
struct Packet {
    number: u8,
    payload: Vec<u8>,
}

impl Packet {
    async fn read(stream: &mut (impl AsyncReadExt + Unpin)) -> Result<Self, Fault> {
        let mut header = [0; 4];
        stream.read_exact(&mut header).await.map_err(|error| Fault::from_io(&error))?;
        let length = usize::from(header[0]) | usize::from(header[1]) << 8 | usize::from(header[2]) << 16;
        if length == 0 || length > MAX_PACKET {
            return Err(not_mysql());
        }
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await.map_err(|error| Fault::from_io(&error))?;
        Ok(Self { number: header[3], payload })
    }

    async fn write(&self, stream: &mut (impl AsyncWriteExt + Unpin)) -> Result<(), Fault> {
        let length = u32::try_from(self.payload.len()).unwrap_or(u32::MAX).to_le_bytes();
        let mut bytes = vec![length[0], length[1], length[2], self.number];
        bytes.extend_from_slice(&self.payload);
        let written = stream.write_all(&bytes).await;
        let flushed = if written.is_ok() { stream.flush().await } else { written };
        flushed.map_err(|error| Fault::from_io(&error))
    }
}

fn not_mysql() -> Fault {
    Fault::new(Reason::ProtocolError, "unexpected response: the server does not speak the MySQL protocol")
}

/// Relays the login until the server accepts or rejects it. The server's error packet is forwarded to the driver, which classifies it.
///
/// # Errors
/// Of the connection, of TLS, and an authentication plugin that is not supported.
pub(super) async fn log_in(
    driver: &mut UnixStream,
    mut server: TcpStream,
    tls: &ServerTls,
    password: &str,
    deadline: Deadline,
) -> Result<Box<dyn Io>, Fault> {
    let mut greeting = Packet::read(&mut server).await?;
    if greeting.payload[0] == 0xff {
        greeting.write(driver).await?;
        return Ok(Box::new(server));
    }
    let offers_tls = prepare(&mut greeting.payload).ok_or_else(not_mysql)?;
    if tls.enabled() && !offers_tls {
        return Err(Fault::no_tls());
    }
    greeting.write(driver).await?;
    let mut response = Packet::read(driver).await?;
    if !tls.enabled() {
        response.write(&mut server).await?;
        return authenticate(driver, Box::new(server), None).await;
    }
    // SSLRequest is a prefix of the response: flags, maximum packet size, character set and reserved bytes.
    let request = response.payload.get_mut(..32).ok_or_else(not_mysql)?;
    request[1] |= SSL;
    Packet { number: response.number, payload: request.to_vec() }.write(&mut server).await?;
    let mut server: Box<dyn Io> = Box::new(tls.handshake(server, deadline).await?);
    response.number += 1;
    response.write(&mut server).await?;
    authenticate(driver, server, Some(password)).await
}

/// Clears the TLS flag of the greeting, and replaces an unknown plugin; returns whether the server offers TLS.
fn prepare(greeting: &mut Vec<u8>) -> Option<bool> {
    // Protocol version, server version (zero-terminated), connection id, 8 bytes of the nonce, a zero.
    let flags = greeting.iter().position(|byte| *byte == 0)? + 1 + 4 + 8 + 1;
    let offers_tls = greeting.get(flags + 1)? & SSL != 0;
    greeting[flags + 1] &= !SSL;
    // Lower flags, character set, status, upper flags, length of the nonce, 10 reserved bytes, rest of the nonce, plugin.
    let nonce = usize::from(*greeting.get(flags + 7)?).saturating_sub(8).max(13);
    let plugin = flags + 8 + 10 + nonce;
    if !SUPPORTED.contains(&zero_terminated(greeting.get(plugin..)?)) {
        greeting.truncate(plugin);
        greeting.extend_from_slice(NATIVE);
        greeting.push(0);
    }
    Some(offers_tls)
}

/// Relays packets until the server accepts or rejects the login. `password` is set with TLS, over which it may be sent in plain text.
async fn authenticate(
    driver: &mut UnixStream,
    mut server: Box<dyn Io>,
    password: Option<&str>,
) -> Result<Box<dyn Io>, Fault> {
    loop {
        let packet = Packet::read(&mut server).await?;
        match packet.payload.as_slice() {
            [0x00 | 0xff, ..] => {
                packet.write(driver).await?;
                return Ok(server);
            }
            // caching_sha2_password, full authentication: the server has not cached the hash of the password.
            [0x01, 0x04] => {
                let password = password.ok_or_else(without_tls)?;
                send_password(&mut server, packet.number, password).await?;
            }
            // caching_sha2_password, fast authentication succeeded.
            [0x01, 0x03] => packet.write(driver).await?,
            [0xfe, request @ ..] => match zero_terminated(request) {
                SHA256 => {
                    let password = password.ok_or_else(without_tls)?;
                    send_password(&mut server, packet.number, password).await?;
                }
                plugin if SUPPORTED.contains(&plugin) => {
                    packet.write(driver).await?;
                    Packet::read(driver).await?.write(&mut server).await?;
                }
                plugin => return Err(unsupported(plugin)),
            },
            _ => return Err(not_mysql()),
        }
    }
}

async fn send_password(server: &mut Box<dyn Io>, number: u8, password: &str) -> Result<(), Fault> {
    let payload = [password.as_bytes(), &[0]].concat();
    Packet { number: number.wrapping_add(1), payload }.write(server).await
}

fn zero_terminated(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn without_tls() -> Fault {
    let detail = "the account's authentication plugin sends the password, which needs TLS";
    Fault::new(Reason::TlsFailed, detail).with_remedy("set spec.tls.mode to another mode than None")
}

fn unsupported(plugin: &[u8]) -> Fault {
    let plugin: String =
        String::from_utf8_lossy(plugin).chars().filter(|char| !char.is_control()).take(64).collect();
    let detail = format!("the account has the authentication plugin {plugin}, which is not supported");
    let remedy = "give the account mysql_native_password, caching_sha2_password or sha256_password";
    Fault::new(Reason::AuthenticationFailed, detail).with_remedy(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of MySQL 8.0.18.
    const GREETING: &[u8] = b"\n8.0.18\x00\x19\x00\x00\x00\x114aB0c\x06g\x00\xff\xff\xff\x02\x00\xff\xc7\x15\
        \x00\x00\x00\x00\x00\x00\x00\x00\x00\x00tL\x03s\x0f[4\rl4. \x00caching_sha2_password\x00";

    #[test]
    fn a_greeting_is_prepared_for_a_driver_without_tls() {
        let mut greeting = GREETING.to_vec();
        assert_eq!(prepare(&mut greeting), Some(true));
        assert_eq!(prepare(&mut greeting), Some(false), "the flag is off now");
        assert!(greeting.ends_with(b"\x00caching_sha2_password\x00"));
        let differing = greeting.iter().zip(GREETING).filter(|(one, other)| one != other).count();
        assert_eq!((differing, greeting.len()), (1, GREETING.len()));
    }

    #[test]
    fn a_default_plugin_that_the_driver_lacks_is_replaced() {
        let position = GREETING.len() - b"caching_sha2_password\x00".len();
        let mut greeting = [&GREETING[..position], b"auth_gssapi_client\x00"].concat();
        assert_eq!(prepare(&mut greeting), Some(true));
        assert!(greeting.ends_with(b". \x00mysql_native_password\x00"));
    }

    #[test]
    fn a_greeting_that_is_cut_short_is_none() {
        for length in [0, 3, 20, 40] {
            assert_eq!(prepare(&mut GREETING[..length].to_vec()), None, "{length}");
        }
    }

    /// Lets a server that behaves as `script` meet the phase; gives what the driver has got, and how it ended.
    async fn run(server_says: &[&[u8]], password: Option<&str>) -> (Vec<u8>, Vec<u8>, Result<(), Fault>) {
        let (mut driver, ours) = UnixStream::pair().expect("sockets");
        let (near, mut far) = tokio::io::duplex(4096);
        let mut ours = ours;
        let packets: Vec<u8> = server_says
            .iter()
            .enumerate()
            .flat_map(|(index, payload)| {
                let number = u8::try_from(2 * index + 2).expect("few");
                [&[u8::try_from(payload.len()).expect("short"), 0, 0, number], *payload].concat()
            })
            .collect();
        far.write_all(&packets).await.expect("room");
        let ended = authenticate(&mut ours, Box::new(near), password).await.map(drop);
        drop(ours);
        let (mut to_driver, mut to_server) = (Vec::new(), Vec::new());
        driver.read_to_end(&mut to_driver).await.expect("bytes");
        far.read_to_end(&mut to_server).await.expect("bytes");
        (to_driver, to_server, ended)
    }

    #[tokio::test]
    async fn a_password_is_sent_within_tls_where_the_server_has_not_cached_its_hash() {
        // A fake, since no MySQL 8 is at hand.
        let (to_driver, to_server, ended) = run(&[&[1, 4], &[0, 0, 0]], Some("s3cret")).await;
        assert_eq!(to_server, b"\x07\x00\x00\x03s3cret\x00");
        assert_eq!((to_driver.as_slice(), ended), (&b"\x03\x00\x00\x04\x00\x00\x00"[..], Ok(())));
        let switch = b"\xfesha256_password\x00nonce";
        let (_, to_server, ended) = run(&[switch, &[0, 0, 0]], Some("s3cret")).await;
        assert_eq!((to_server.as_slice(), ended), (&b"\x07\x00\x00\x03s3cret\x00"[..], Ok(())));
    }

    #[tokio::test]
    async fn a_password_is_never_sent_without_tls() {
        let (_, to_server, ended) = run(&[&[1, 4]], None).await;
        assert!(to_server.is_empty() && ended.unwrap_err().detail.contains("needs TLS"));
    }

    #[tokio::test]
    async fn a_plugin_that_is_not_supported_is_named() {
        let (.., ended) = run(&[b"\xfedialog\x00"], Some("s3cret")).await;
        let fault = ended.unwrap_err();
        assert_eq!(fault.reason, Reason::AuthenticationFailed);
        assert!(fault.detail.contains("plugin dialog"), "{fault}");
    }
}
