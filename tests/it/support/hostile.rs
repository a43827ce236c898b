//! Servers that no real system can be made to be, written by hand.

use std::{
    io::Write,
    net::{Ipv4Addr, TcpListener, TcpStream},
};

/// Accepts connections and never says a word; gives its port.
pub(crate) fn silent_server() -> u16 {
    serve(drop_nothing)
}

/// Greets with a line that is no protocol that we know; gives its port.
pub(crate) fn chatty_server() -> u16 {
    serve(|mut stream| {
        let _ = stream.write_all(b"220 mail.example.org ESMTP\r\n");
        drop_nothing(stream);
    })
}

/// Refuses TLS as a PostgreSQL without a certificate does: the server's script has no such mode. Gives its port.
pub(crate) fn postgresql_without_tls() -> u16 {
    serve(|mut stream| {
        let _ = stream.write_all(b"N");
        drop_nothing(stream);
    })
}

/// Closes each connection at once; gives its port.
pub(crate) fn closing_server() -> u16 {
    serve(drop)
}

/// Keeps the connection open for as long as the tests run.
fn drop_nothing(stream: TcpStream) {
    std::mem::forget(stream);
}

/// Does this with each connection, one after the other; gives its port.
pub(crate) fn serve(answer: impl Fn(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    // The thread ends with the tests.
    std::thread::spawn(move || listener.incoming().filter_map(Result::ok).for_each(answer));
    port
}
