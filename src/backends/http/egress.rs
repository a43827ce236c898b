//! Egress: which addresses a name has, and whether they may be connected to.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use tokio::{net::TcpStream, time::timeout};

use super::{CONNECT_TIMEOUT, Fault};
use crate::{
    api::Reason,
    backends::{resolver, transport},
    domain::addresses,
};

/// Decides whether the addresses of a name may be connected to, or says why not. One denied address denies the name.
pub type Guard = Arc<dyn Fn(&[IpAddr]) -> Result<(), String> + Send + Sync>;

/// Resolves a host name.
pub type Resolver = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;

/// Each connection is made to an address that was resolved for it and vetted by the guard: a name that resolves differently a
/// moment later (DNS rebinding) changes nothing.
#[derive(Clone)]
pub struct Egress {
    guard: Guard,
    resolver: Resolver,
    lookup_timeout: Duration,
}

impl Egress {
    /// With the system's resolver.
    #[must_use]
    pub fn new(guard: Guard) -> Self {
        Self { guard, resolver: Arc::new(|host| system(host).boxed()), lookup_timeout: CONNECT_TIMEOUT }
    }

    /// Only to the addresses that the policy allows calls to.
    #[must_use]
    pub fn guarded(policy: addresses::Egress, resolver: Arc<resolver::Resolver>) -> Self {
        let guard =
            move |found: &[IpAddr]| policy.check_calls(found.iter().copied()).map_err(|it| it.to_string());
        Self::found_by(resolver, Arc::new(guard))
    }

    /// Only to the addresses that the policy allows in an EndpointSlice, private ones included.
    #[must_use]
    pub fn to_endpoints(policy: addresses::Egress, resolver: Arc<resolver::Resolver>) -> Self {
        let guard = move |found: &[IpAddr]| {
            found.iter().try_for_each(|address| policy.check_endpoint(*address)).map_err(|it| it.to_string())
        };
        Self::found_by(resolver, Arc::new(guard))
    }

    /// To any address, with this resolver: for servers that may be anywhere.
    #[must_use]
    pub fn anywhere(resolver: Arc<resolver::Resolver>) -> Self {
        Self::found_by(resolver, Arc::new(|_| Ok(())))
    }

    /// To any address, with the system's resolver.
    #[must_use]
    pub fn unrestricted() -> Self {
        Self::new(Arc::new(|_| Ok(())))
    }

    fn found_by(resolver: Arc<resolver::Resolver>, guard: Guard) -> Self {
        Self::new(guard).with_resolver(Arc::new(move |host| {
            let resolver = Arc::clone(&resolver);
            async move {
                let mut list = resolver.resolve(&host).await.map_err(io::Error::other)?.list;
                // The first address is tried first: spread connections over all of them.
                let first = rand::random_range(..list.len().max(1));
                list.rotate_left(first);
                Ok(list)
            }
            .boxed()
        }))
    }

    /// With another resolver.
    #[must_use]
    pub fn with_resolver(self, resolver: Resolver) -> Self {
        Self { resolver, ..self }
    }

    /// With another timeout for the DNS lookup.
    #[must_use]
    pub fn with_lookup_timeout(self, lookup_timeout: Duration) -> Self {
        Self { lookup_timeout, ..self }
    }

    /// The addresses of `host`, each of which may be connected to. An address in place of a name is vetted as well.
    ///
    /// # Errors
    /// `DnsFailed` when there is none or no server responded, `AddressDenied` when the guard refuses one.
    pub async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Fault> {
        let found = match host.parse() {
            Ok(address) => vec![address],
            Err(_) => match timeout(self.lookup_timeout, (self.resolver)(host.to_owned())).await {
                Ok(Ok(found)) => found,
                Ok(Err(error)) => {
                    let fault = error.get_ref().and_then(|inner| inner.downcast_ref::<Fault>()).cloned();
                    // No error code tells a name without address from a server that did not respond; the text does.
                    let detail = || format!("DNS lookup of {host} failed: {error}");
                    return Err(fault.unwrap_or_else(|| Fault::new(Reason::DnsFailed, detail())));
                }
                Err(_) => return Err(Fault::no_dns_answer(host)),
            },
        };
        if found.is_empty() {
            return Err(Fault::no_address(host));
        }
        (self.guard)(&found).map_err(|why| Fault::new(Reason::AddressDenied, why))?;
        Ok(found.into_iter().map(|address| SocketAddr::new(address, port)).collect())
    }

    /// Connects to the first address of `host` that accepts.
    ///
    /// # Errors
    /// Those of [`Self::addresses`], else what the last address said.
    pub async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, Fault> {
        transport::dial(&self.addresses(host, port).await?).await
    }
}

impl fmt::Debug for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Egress")
    }
}

async fn system(host: String) -> io::Result<Vec<IpAddr>> {
    let mut addresses: Vec<_> = tokio::net::lookup_host((host, 0)).await?.map(|found| found.ip()).collect();
    // One for each kind of socket, with some resolvers.
    addresses.dedup();
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Allows everything but loopback, as a whole answer.
    fn egress(answer: &'static [&'static str]) -> Egress {
        let guard = |addresses: &[IpAddr]| match addresses.iter().find(|address| address.is_loopback()) {
            Some(address) => Err(format!("{address} is a loopback address")),
            None => Ok(()),
        };
        // A fake: no real resolver gives the answers that an attacker's would.
        let resolver = |_| async { Ok(answer.iter().filter_map(|text| text.parse().ok()).collect()) }.boxed();
        Egress::new(Arc::new(guard)).with_resolver(Arc::new(resolver))
    }

    #[tokio::test]
    async fn a_name_with_one_denied_address_is_denied() {
        let fault = egress(&["192.0.2.1", "127.0.0.1"]).addresses("mixed.example", 80).await.unwrap_err();
        assert_eq!(
            (fault.reason, fault.detail.as_str()),
            (Reason::AddressDenied, "127.0.0.1 is a loopback address")
        );
    }

    #[tokio::test]
    async fn the_vetted_addresses_are_the_ones_to_connect_to() {
        let found = egress(&["192.0.2.1", "2001:db8::1"]).addresses("two.example", 443).await.unwrap();
        assert_eq!(found, ["192.0.2.1:443".parse().unwrap(), "[2001:db8::1]:443".parse().unwrap()]);
    }

    #[tokio::test]
    async fn an_address_in_place_of_a_name_is_asked_about_without_the_resolver() {
        let egress = egress(&["192.0.2.1"]);
        assert_eq!(egress.addresses("127.0.0.1", 80).await.unwrap_err().reason, Reason::AddressDenied);
        assert_eq!(egress.addresses("::1", 80).await.unwrap_err().reason, Reason::AddressDenied);
    }

    #[tokio::test]
    async fn what_the_system_takes_for_an_address_is_asked_about_too() {
        let guard = |addresses: &[IpAddr]| Err(format!("{addresses:?}"));
        let egress = Egress::new(Arc::new(guard));
        for disguise in ["2130706433", "0x7f.1", "127.1", "0177.0.0.1"] {
            let fault = egress.addresses(disguise, 80).await.unwrap_err();
            assert_eq!(
                (fault.reason, fault.detail.as_str()),
                (Reason::AddressDenied, "[127.0.0.1]"),
                "{disguise}"
            );
        }
    }

    #[tokio::test]
    async fn a_name_without_an_address_is_dns_failed() {
        assert_eq!(egress(&[]).addresses("none.example", 80).await.unwrap_err().reason, Reason::DnsFailed);
    }
}
