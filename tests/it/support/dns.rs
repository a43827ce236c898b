//! A DNS server whose answers a test changes. A fake: no real server changes its mind within a test at a word.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex},
};

use hickory_resolver::proto::{
    op::{Message, Query, ResponseCode},
    rr::{RData, Record, RecordType},
};
use tokio::{net::UdpSocket, task::AbortHandle};

use super::test_dir;

/// Answers every question for an address with what was last set; ended with the value.
pub(crate) struct Dns {
    address: Ipv4Addr,
    answers: Arc<Mutex<Answers>>,
    task: AbortHandle,
}

#[derive(Clone, Default)]
struct Answers {
    addresses: Vec<Ipv4Addr>,
    silent: bool,
    silent_on_ipv6: bool,
}

/// No name in this domain exists, and the server says so whatever it says of others.
pub(crate) const NOWHERE: &str = "nowhere.test";

impl Dns {
    /// Says that no name exists, until told otherwise.
    pub(crate) async fn start() -> Self {
        // Every address of 127.0.0.0/8 is ours, and resolv.conf knows port 53 alone.
        let (address, socket) = loop {
            let address = Ipv4Addr::from(0x7F40_0000 | (rand::random::<u32>() & 0x3F_FFFF));
            if let Ok(socket) = UdpSocket::bind(SocketAddr::from((address, 53))).await {
                break (address, socket);
            }
        };
        let answers = Arc::<Mutex<Answers>>::default();
        let task = tokio::spawn(serve(socket, Arc::clone(&answers))).abort_handle();
        Self { address, answers, task }
    }

    /// From now on names have these addresses, for a second; none: they do not exist.
    pub(crate) fn answer(&self, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| address.parse().expect("an address")).collect();
        let mut answers = self.answers.lock().expect("a lock");
        (answers.addresses, answers.silent) = (addresses, false);
    }

    /// From now on there is no answer.
    pub(crate) fn be_silent(&self) {
        self.answers.lock().expect("a lock").silent = true;
    }

    /// From now on there is no answer to who asks for addresses of IPv6.
    pub(crate) fn be_silent_on_ipv6(&self) {
        self.answers.lock().expect("a lock").silent_on_ipv6 = true;
    }

    /// A file that leads here.
    pub(crate) fn resolv_conf(&self) -> PathBuf {
        self.resolv_conf_with("options timeout:1 attempts:1")
    }

    /// The same with these lines.
    pub(crate) fn resolv_conf_with(&self, lines: &str) -> PathBuf {
        let path = test_dir().join(format!("resolv-{}.conf", self.address));
        let text = format!("nameserver {}\n{lines}\n", self.address);
        std::fs::write(&path, text).expect("the test folder can be written to");
        path
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(socket: UdpSocket, answers: Arc<Mutex<Answers>>) {
    let mut buffer = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        let Ok(request) = Message::from_vec(&buffer[..length]) else { continue };
        let Answers { mut addresses, silent, silent_on_ipv6 } = answers.lock().expect("a lock").clone();
        let asked = |it: &dyn Fn(&Query) -> bool| request.queries.iter().any(it);
        let nowhere = asked(&|it| it.name().to_utf8().trim_end_matches('.').ends_with(NOWHERE));
        if (silent && !nowhere) || (silent_on_ipv6 && asked(&|it| it.query_type() == RecordType::AAAA)) {
            continue;
        }
        if nowhere {
            addresses.clear();
        }
        let mut response = Message::response(request.metadata.id, request.metadata.op_code);
        for query in &request.queries {
            response.add_query(query.clone());
            let found = addresses.iter().filter(|_| query.query_type() == RecordType::A);
            for address in found {
                let data = RData::A((*address).into());
                response.add_answer(Record::from_rdata(query.name().clone(), 1, data));
            }
        }
        if addresses.is_empty() {
            response.metadata.response_code = ResponseCode::NXDomain;
        }
        let bytes = response.to_vec().expect("a message");
        let _ = socket.send_to(&bytes, from).await;
    }
}

/// The addresses as the resolver gives them.
pub(crate) fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().expect("an address")).collect()
}
