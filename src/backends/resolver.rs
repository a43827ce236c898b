//! Host names to addresses, with the time for which they hold.

use std::{
    collections::HashMap,
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join;
use hickory_resolver::{
    TokioResolver,
    config::{LookupIpStrategy, ResolverConfig, ResolverOpts},
    net::runtime::TokioRuntimeProvider,
    proto::rr::Name,
    system_conf::parse_resolv_conf,
};
use parking_lot::{Mutex, MutexGuard};
use tokio::time::timeout;

use super::Fault;
use crate::api::Reason;

/// An answer holds at least this long, whatever its TTL says: a name with a TTL of zero must not be asked for all the time.
const SHORTEST: Duration = Duration::from_secs(5);

/// And at most this long.
const LONGEST: Duration = Duration::from_mins(5);

/// How long the servers may take for one question, and for all that a name takes.
const QUESTION: Duration = Duration::from_secs(2);
const LOOKUP: Duration = Duration::from_secs(5);

/// Who knows addresses from before waits this long for new ones (RFC 8767, section 5, with less patience: a probe's whole time
/// may be a second). The servers are asked all the same.
const KNOWN: Duration = Duration::from_millis(500);

/// The addresses of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// In ascending order; none where the name has no address.
    pub list: Vec<IpAddr>,
    /// How long they hold from now on; none for an address that was given as such, and where there is none.
    pub valid: Option<Duration>,
}

/// Asks DNS servers, and the hosts file of the system first.
pub struct Resolver(Arc<Inner>);

struct Inner {
    /// For each of the two kinds of addresses one of its own: what goes wrong with one says nothing of the other.
    v4: TokioResolver,
    v6: TokioResolver,
    search: Vec<Name>,
    ndots: usize,
    /// The last answers to each name: what is known while no server answers.
    known: Mutex<HashMap<String, Both>>,
}

/// IPv4 and IPv6.
type Both = [Vec<IpAddr>; 2];

/// What the servers say of one kind of addresses.
enum Answer {
    Found(Vec<IpAddr>, Duration),
    /// There is none.
    Nothing,
    /// Nobody answers, or says that he cannot.
    Silence,
}

impl Resolver {
    /// With the DNS servers and search domains of a file such as `/etc/resolv.conf`.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn from_file(path: &Path) -> Result<Self, Fault> {
        let unusable = |error: &dyn std::error::Error| {
            Fault::new(Reason::DnsFailed, format!("{} cannot be used ({error})", path.display()))
        };
        let text = std::fs::read(path).map_err(|error| unusable(&error))?;
        let (config, mut options) = parse_resolv_conf(text).map_err(|error| unusable(&error))?;
        options.positive_max_ttl = Some(LONGEST);
        // A name that was just made is found soon.
        options.negative_max_ttl = Some(SHORTEST);
        let only = |family| resolver(&config, &options, family).map_err(|error| unusable(&error));
        let search = match config.search() {
            [] => config.domain().into_iter().cloned().collect(),
            search => search.to_vec(),
        };
        Ok(Self(Arc::new(Inner {
            v4: only(LookupIpStrategy::Ipv4Only)?,
            v6: only(LookupIpStrategy::Ipv6Only)?,
            search,
            ndots: options.ndots,
            known: Mutex::default(),
        })))
    }

    /// The addresses of a host name, or the one address that it is. While no DNS server answers, those that were seen
    /// last; a name that is known not to exist (any more) has none.
    ///
    /// # Errors
    /// `DnsFailed`: nobody answers, and nothing was seen before.
    pub async fn resolve(&self, host: &str) -> Result<Addresses, Fault> {
        if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse() {
            return Ok(Addresses { list: vec![address], valid: None });
        }
        let patience = if self.0.known().contains_key(host) { KNOWN } else { LOOKUP };
        // In a task, so that a slow answer is known to those who ask next.
        let asked = tokio::spawn(Arc::clone(&self.0).ask(host.to_owned()));
        match timeout(patience, asked).await {
            Ok(Ok(answer)) => answer,
            _ => self.0.last(host, SHORTEST),
        }
    }
}

fn resolver(
    config: &ResolverConfig,
    options: &ResolverOpts,
    family: LookupIpStrategy,
) -> Result<TokioResolver, impl std::error::Error + use<>> {
    let mut builder = TokioResolver::builder_with_config(config.clone(), TokioRuntimeProvider::default());
    builder.options_mut().clone_from(options);
    builder.options_mut().ip_strategy = family;
    builder.build()
}

impl Inner {
    async fn ask(self: Arc<Self>, host: String) -> Result<Addresses, Fault> {
        let answers = timeout(LOOKUP, self.look_up(&host)).await;
        let answers = answers.unwrap_or([Answer::Silence, Answer::Silence]);
        let mut valid = LONGEST;
        let mut known = self.known();
        let lists = known.entry(host.clone()).or_default();
        for (list, answer) in lists.iter_mut().zip(&answers) {
            match answer {
                Answer::Found(found, holds) => {
                    list.clone_from(found);
                    valid = valid.min(*holds);
                }
                Answer::Nothing => list.clear(),
                Answer::Silence => valid = SHORTEST,
            }
        }
        if lists.iter().all(Vec::is_empty) {
            known.remove(&host);
        }
        drop(known);
        if answers.iter().all(|answer| matches!(answer, Answer::Nothing)) {
            return Ok(Addresses { list: Vec::new(), valid: None });
        }
        self.last(&host, valid.max(SHORTEST))
    }

    /// The first of the names that the host may mean that has an address (resolv.conf(5), "search" and "ndots"). Where a
    /// server keeps silent, a later name that does not exist is no answer to the question.
    async fn look_up(&self, host: &str) -> [Answer; 2] {
        let mut silent = [false; 2];
        for name in self.names(host) {
            let answers = join(one(&self.v4, &name), one(&self.v6, &name)).await;
            let answers: [Answer; 2] = answers.into();
            if answers.iter().any(|answer| matches!(answer, Answer::Found(..))) {
                return answers;
            }
            for (silent, answer) in silent.iter_mut().zip(&answers) {
                *silent |= matches!(answer, Answer::Silence);
            }
        }
        silent.map(|silent| if silent { Answer::Silence } else { Answer::Nothing })
    }

    fn names(&self, host: &str) -> Vec<Name> {
        let Ok(name) = Name::from_utf8(host) else { return Vec::new() };
        if name.is_fqdn() {
            return vec![name];
        }
        let within = self.search.iter().filter_map(|domain| name.clone().append_domain(domain).ok());
        let mut names: Vec<_> = within.collect();
        let mut whole = name.clone();
        whole.set_fqdn(true);
        let first = usize::from(name.num_labels()) > self.ndots || name.is_localhost();
        names.insert(if first { 0 } else { names.len() }, whole);
        names
    }

    /// What is known of the name.
    fn last(&self, host: &str, valid: Duration) -> Result<Addresses, Fault> {
        let mut list = self.known().get(host).map(|both| both.concat()).unwrap_or_default();
        if list.is_empty() {
            return Err(Fault::unanswered(host));
        }
        list.sort_unstable();
        list.dedup();
        Ok(Addresses { list, valid: Some(valid) })
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Both>> {
        self.known.lock()
    }
}

/// Asks for one kind of addresses of one name.
async fn one(resolver: &TokioResolver, name: &Name) -> Answer {
    match timeout(QUESTION, resolver.lookup_ip(name.clone())).await {
        Ok(Ok(found)) => {
            let list: Vec<_> = found.iter().collect();
            let holds = found.valid_until().saturating_duration_since(Instant::now());
            if list.is_empty() { Answer::Nothing } else { Answer::Found(list, holds) }
        }
        Ok(Err(error)) if error.is_no_records_found() => Answer::Nothing,
        _ => Answer::Silence,
    }
}
