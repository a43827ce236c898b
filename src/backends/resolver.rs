//! DNS resolution, with the time for which the addresses are valid.

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

/// Lower bound of a TTL: a name with a TTL of zero must not be looked up all the time.
const MIN_TTL: Duration = Duration::from_secs(5);

/// Upper bound of a TTL.
const MAX_TTL: Duration = Duration::from_mins(5);

/// Timeout of one query, and of all queries that a name takes.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// With addresses in the cache, new ones are awaited for so long (RFC 8767, section 5, with a shorter time: a probe's whole
/// timeout may be a second). The lookup goes on in the background.
const CACHED_LOOKUP_TIMEOUT: Duration = Duration::from_millis(500);

/// The addresses of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// In ascending order; none where the name has no address.
    pub list: Vec<IpAddr>,
    /// How long they are valid from now on; none for an address in place of a name, and where there is no address.
    pub valid: Option<Duration>,
}

/// Asks the hosts file of the system, then DNS servers.
pub struct Resolver(Arc<Inner>);

struct Inner {
    /// One for each address family: a failure of one says nothing about the other.
    v4: TokioResolver,
    v6: TokioResolver,
    search: Vec<Name>,
    ndots: usize,
    /// The last addresses of each name, for the time in which no server responds.
    cache: Mutex<HashMap<String, Both>>,
}

/// IPv4 and IPv6.
type Both = [Vec<IpAddr>; 2];

/// The result for one address family.
enum Answer {
    Found(Vec<IpAddr>, Duration),
    /// The name has no address of this family.
    Empty,
    /// No server responded, or none could tell.
    Failed,
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
        options.positive_max_ttl = Some(MAX_TTL);
        // A name that was just created is found soon.
        options.negative_max_ttl = Some(MIN_TTL);
        let only = |family| family_resolver(&config, &options, family).map_err(|error| unusable(&error));
        let search = match config.search() {
            [] => config.domain().into_iter().cloned().collect(),
            search => search.to_vec(),
        };
        Ok(Self(Arc::new(Inner {
            v4: only(LookupIpStrategy::Ipv4Only)?,
            v6: only(LookupIpStrategy::Ipv6Only)?,
            search,
            ndots: options.ndots,
            cache: Mutex::default(),
        })))
    }

    /// The addresses of a host name; an address is returned as it is. While no DNS server responds, those of the cache; a name
    /// that does not exist (any more) has none.
    ///
    /// # Errors
    /// `DnsFailed`: no server responded, and the cache has no address.
    pub async fn resolve(&self, host: &str) -> Result<Addresses, Fault> {
        if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse() {
            return Ok(Addresses { list: vec![address], valid: None });
        }
        let cached = self.0.cache().contains_key(host);
        let limit = if cached { CACHED_LOOKUP_TIMEOUT } else { LOOKUP_TIMEOUT };
        // In a task, so that a slow answer still gets into the cache.
        let lookup = tokio::spawn(Arc::clone(&self.0).refresh(host.to_owned()));
        match timeout(limit, lookup).await {
            Ok(Ok(answer)) => answer,
            _ => self.0.cached(host, MIN_TTL),
        }
    }
}

fn family_resolver(
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
    async fn refresh(self: Arc<Self>, host: String) -> Result<Addresses, Fault> {
        let answers = timeout(LOOKUP_TIMEOUT, self.look_up(&host)).await;
        let answers = answers.unwrap_or([Answer::Failed, Answer::Failed]);
        let mut valid = MAX_TTL;
        let mut cache = self.cache();
        let lists = cache.entry(host.clone()).or_default();
        for (list, answer) in lists.iter_mut().zip(&answers) {
            match answer {
                Answer::Found(found, ttl) => {
                    list.clone_from(found);
                    valid = valid.min(*ttl);
                }
                Answer::Empty => list.clear(),
                Answer::Failed => valid = MIN_TTL,
            }
        }
        if lists.iter().all(Vec::is_empty) {
            cache.remove(&host);
        }
        drop(cache);
        if answers.iter().all(|answer| matches!(answer, Answer::Empty)) {
            return Ok(Addresses { list: Vec::new(), valid: None });
        }
        self.cached(&host, valid.max(MIN_TTL))
    }

    /// The first of the candidate names that has an address (resolv.conf(5), "search" and "ndots"). Where no server responded
    /// for one of them, a later name that does not exist proves nothing.
    async fn look_up(&self, host: &str) -> [Answer; 2] {
        let mut no_answer = [false; 2];
        for name in self.candidates(host) {
            let answers = join(query(&self.v4, &name), query(&self.v6, &name)).await;
            let answers: [Answer; 2] = answers.into();
            if answers.iter().any(|answer| matches!(answer, Answer::Found(..))) {
                return answers;
            }
            for (no_answer, answer) in no_answer.iter_mut().zip(&answers) {
                *no_answer |= matches!(answer, Answer::Failed);
            }
        }
        no_answer.map(|no_answer| if no_answer { Answer::Failed } else { Answer::Empty })
    }

    fn candidates(&self, host: &str) -> Vec<Name> {
        let Ok(name) = Name::from_str_relaxed(host) else { return Vec::new() };
        if name.is_fqdn() {
            return vec![name];
        }
        let within = self.search.iter().filter_map(|domain| name.clone().append_domain(domain).ok());
        let mut names: Vec<_> = within.collect();
        let mut absolute = name.clone();
        absolute.set_fqdn(true);
        let first = usize::from(name.num_labels()) > self.ndots || name.is_localhost();
        names.insert(if first { 0 } else { names.len() }, absolute);
        names
    }

    /// The addresses of the cache.
    fn cached(&self, host: &str, valid: Duration) -> Result<Addresses, Fault> {
        let mut list = self.cache().get(host).map(|both| both.concat()).unwrap_or_default();
        if list.is_empty() {
            return Err(Fault::no_dns_answer(host));
        }
        list.sort_unstable();
        list.dedup();
        Ok(Addresses { list, valid: Some(valid) })
    }

    fn cache(&self) -> MutexGuard<'_, HashMap<String, Both>> {
        self.cache.lock()
    }
}

/// Queries one address family of one name.
async fn query(resolver: &TokioResolver, name: &Name) -> Answer {
    match timeout(QUERY_TIMEOUT, resolver.lookup_ip(name.clone())).await {
        Ok(Ok(found)) => {
            let list: Vec<_> = found.iter().collect();
            let ttl = found.valid_until().saturating_duration_since(Instant::now());
            if list.is_empty() { Answer::Empty } else { Answer::Found(list, ttl) }
        }
        Ok(Err(error)) if error.is_no_records_found() => Answer::Empty,
        _ => Answer::Failed,
    }
}
