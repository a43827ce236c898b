//! Host names to addresses, with the time for which they hold.

use std::{
    collections::HashMap,
    net::IpAddr,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hickory_resolver::{
    TokioResolver, config::LookupIpStrategy, net::runtime::TokioRuntimeProvider,
    system_conf::parse_resolv_conf,
};

use super::Fault;
use crate::api::Reason;

/// An answer holds at least this long, whatever its TTL says: a name with a TTL of zero must not be asked for all the time.
const SHORTEST: Duration = Duration::from_secs(5);

/// And at most this long.
const LONGEST: Duration = Duration::from_mins(5);

/// The addresses of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// In ascending order, at least one.
    pub list: Vec<IpAddr>,
    /// How long they hold from now on; none for an address that was given as such.
    pub valid: Option<Duration>,
}

/// Asks DNS servers, and the hosts file of the system first.
pub struct Resolver {
    dns: TokioResolver,
    /// The last answer to each name: what is known while no server answers.
    known: Mutex<HashMap<String, Vec<IpAddr>>>,
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
        let (config, options) = parse_resolv_conf(text).map_err(|error| unusable(&error))?;
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        let dns = builder.build().map_err(|error| unusable(&error))?;
        Ok(Self { dns, known: Mutex::default() })
    }

    /// The addresses of a host name, or the one address that it is. While no DNS server answers, those that were seen
    /// last; a name that is known not to exist (any more) has none.
    ///
    /// # Errors
    /// `DnsFailed`: the name has no address. `Timeout`: nobody answers, and nothing was seen before.
    pub async fn resolve(&self, host: &str) -> Result<Addresses, Fault> {
        if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse() {
            return Ok(Addresses { list: vec![address], valid: None });
        }
        match self.dns.lookup_ip(host).await {
            Ok(found) => {
                let valid = found.valid_until().saturating_duration_since(Instant::now());
                let mut list: Vec<_> = found.iter().collect();
                list.sort_unstable();
                list.dedup();
                if list.is_empty() {
                    return Err(none(host));
                }
                self.known().insert(host.to_owned(), list.clone());
                Ok(Addresses { list, valid: Some(valid.clamp(SHORTEST, LONGEST)) })
            }
            Err(error) if error.is_no_records_found() => {
                self.known().remove(host);
                Err(none(host))
            }
            Err(_) => match self.known().get(host) {
                Some(list) => Ok(Addresses { list: list.clone(), valid: Some(SHORTEST) }),
                None => Err(Fault::new(Reason::Timeout, format!("no DNS server answers what {host} is"))),
            },
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Vec<IpAddr>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn none(host: &str) -> Fault {
    Fault::new(Reason::DnsFailed, format!("the host name {host} has no address"))
}
