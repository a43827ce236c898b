//! One address of an instance as something that can be probed, and its load as the answers tell it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use hyper::HeaderMap;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    api::{Reason, v1alpha1::service_registration::Load},
    backends::{
        Fault,
        external_api::{EndpointSettings, HttpEndpoint},
        http::Egress,
    },
    controllers::targets,
    probing::Target,
};

/// How one address is reached.
#[derive(Clone)]
pub struct ProbeTarget {
    pub(super) settings: EndpointSettings,
    pub(super) load: Option<Load>,
    pub(super) egress: Egress,
}

/// One address of an instance.
pub struct AddressProbe {
    service: HttpEndpoint,
    source: Option<Load>,
    /// The bits of the last load; not a number while there is none. It is no fact: it moves all the time.
    load: AtomicU64,
}

impl AddressProbe {
    /// Its load by the last answer that has one.
    #[must_use]
    pub fn load(&self) -> Option<f64> {
        Some(f64::from_bits(self.load.load(Relaxed))).filter(|load| load.is_finite())
    }
}

impl Target for AddressProbe {
    type Facts = ();

    async fn probe(&self) -> Result<(), Fault> {
        let read = |head: &HeaderMap, body: &[u8]| {
            let load = self.source.as_ref().and_then(|source| read_load(source, head, body));
            self.load.store(load.unwrap_or(f64::NAN).to_bits(), Relaxed);
        };
        let probed = self.service.probe_and_read(read).await;
        // Here no setting of the operator opens an address.
        let denied = |fault: Fault| match fault.reason {
            Reason::AddressDenied => Fault::new(Reason::AddressNotAllowed, fault.detail),
            _ => fault,
        };
        probed.map(drop).map_err(denied)
    }
}

/// A number from 0 on.
fn read_load(source: &Load, head: &HeaderMap, body: &[u8]) -> Option<f64> {
    let number = match (&source.from_header, &source.json_pointer) {
        (Some(header), _) => head.get(header)?.to_str().ok()?.trim().parse().ok(),
        (None, Some(pointer)) => match serde_json::from_slice::<Value>(body).ok()?.pointer(pointer)? {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        },
        (None, None) => None,
    };
    number.filter(|number| number.is_finite() && *number >= 0.0)
}

impl targets::TargetSettings for ProbeTarget {
    type Target = AddressProbe;

    const CONNECTED: (Reason, &'static str) = (Reason::Reachable, "connections succeed");

    fn key(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(self.settings.key());
        // Whoever reads the load elsewhere cannot share the probes.
        digest.update(format!("{:?}", self.load));
        digest.finalize().into()
    }

    fn target_key(&self) -> [u8; 32] {
        self.key()
    }

    fn host(&self) -> &str {
        self.settings.base.host()
    }

    fn port(&self) -> u16 {
        self.settings.base.port()
    }

    fn target(&self) -> Result<AddressProbe, Fault> {
        Ok(AddressProbe {
            service: HttpEndpoint::new(self.settings.clone(), &self.egress)?,
            source: self.load.clone(),
            load: AtomicU64::new(f64::NAN.to_bits()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_header(value: &str) -> Option<f64> {
        let source = Load { from_header: Some("X-Load".to_owned()), json_pointer: None };
        let head = HeaderMap::from_iter([("x-load".parse().unwrap(), value.parse().unwrap())]);
        read_load(&source, &head, b"")
    }

    fn by_pointer(pointer: &str, body: &str) -> Option<f64> {
        let source = Load { from_header: None, json_pointer: Some(pointer.to_owned()) };
        read_load(&source, &HeaderMap::new(), body.as_bytes())
    }

    #[test]
    fn a_load_is_a_number_from_0_on() {
        assert_eq!(
            [by_header("0.42"), by_header(" 17 "), by_header("0")],
            [Some(0.42), Some(17.0), Some(0.0)]
        );
        for text in ["", "high", "-1", "NaN", "inf", "1e999", "0,5"] {
            assert_eq!(by_header(text), None, "{text}");
        }
    }

    #[test]
    fn a_load_is_found_in_json_by_its_pointer() {
        let body = r#"{ "system": { "load/1": 0.5, "text": "0.25", "cpus": [1, 2] } }"#;
        assert_eq!(by_pointer("/system/load~11", body), Some(0.5));
        assert_eq!(by_pointer("/system/text", body), Some(0.25));
        assert_eq!(by_pointer("/system/cpus/1", body), Some(2.0));
        assert_eq!(by_pointer("", "0.5"), Some(0.5));
        for (pointer, body) in [("/system", body), ("/none", body), ("/a", "no json"), ("/a", "{\"a\":-1}")] {
            assert_eq!(by_pointer(pointer, body), None, "{pointer}");
        }
    }
}
