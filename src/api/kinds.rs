//! The table of kinds. A new kind is one line here plus its own files; everything that is done once per kind is
//! generated from this table.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResourceExt, Resource};

use super::{Managed, crd::finish, v1alpha1};

/// Calls a macro with the table: each kind, and the name of its modules in every layer.
macro_rules! for_each_kind {
    ($apply:ident) => {
        $apply! {
            Database => database,
            ExternalApi => external_api,
            LdapDirectory => ldap_directory,
            ServiceRegistration => service_registration,
            Webhook => webhook,
        }
    };
}

pub(crate) use for_each_kind;

/// A kind of the table.
pub trait HasKind: Managed {
    /// The entry in the table.
    const KIND: Kind;
}

macro_rules! kinds {
    ($($Kind:ident => $module:ident,)+) => {
        /// A kind of the API group.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind { $(#[doc = concat!("See [`v1alpha1::", stringify!($Kind), "`].")] $Kind),+ }

        impl Kind {
            /// Every kind, in alphabetical order.
            pub const ALL: &'static [Self] = &[$(Self::$Kind),+];

            /// The name in `kind:`, such as `ServiceRegistration`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$Kind => stringify!($Kind)),+ }
            }

            /// The name of its modules, tests and examples, such as `service_registration`.
            #[must_use]
            pub const fn stem(self) -> &'static str {
                match self { $(Self::$Kind => stringify!($module)),+ }
            }

            /// The resource name in RBAC rules, such as `serviceregistrations`.
            #[must_use]
            pub fn plural(self) -> String {
                match self { $(Self::$Kind => v1alpha1::$Kind::plural(&()).into_owned()),+ }
            }

            /// Whether objects of the kind may have our finalizer.
            #[must_use]
            pub const fn has_finalizer(self) -> bool {
                match self { $(Self::$Kind => v1alpha1::$Kind::HAS_EXTERNAL_STATE),+ }
            }

            /// The CRD, as written to `crds/` and to the chart.
            #[must_use]
            pub fn crd(self) -> CustomResourceDefinition {
                match self { $(Self::$Kind => finish::<v1alpha1::$Kind>(v1alpha1::$Kind::crd())),+ }
            }
        }

        $(impl HasKind for v1alpha1::$Kind {
            const KIND: Kind = Kind::$Kind;
        })+
    };
}

for_each_kind!(kinds);

impl Kind {
    /// The kind with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == name)
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The CRDs of every kind.
#[must_use]
pub fn all_crds() -> Vec<CustomResourceDefinition> {
    Kind::ALL.iter().map(|kind| kind.crd()).collect()
}
