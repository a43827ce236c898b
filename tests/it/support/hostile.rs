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

/// A port whose queue of connections is full: the kernel drops all further ones, as a firewall does.
pub(crate) struct FullQueue {
    pub(crate) port: u16,
    _listener: socket2::Socket,
    _queued: Vec<socket2::Socket>,
}

/// Makes one.
pub(crate) fn full_queue() -> FullQueue {
    use socket2::{Domain, SockAddr, Socket, Type};
    let any = SockAddr::from(std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    listener.bind(&any).expect("a free port");
    listener.listen(0).expect("a listener");
    let address = listener.local_addr().expect("an address");
    let port = address.as_socket_ipv4().expect("an address").port();
    let queued = (0..8).map(|_| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_nonblocking(true).expect("a mode");
        // It is queued, or waits to be.
        let _ = socket.connect(&address);
        socket
    });
    FullQueue { port, _queued: queued.collect(), _listener: listener }
}
