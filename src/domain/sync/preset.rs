//! What directories of one make have in common.

/// A make of directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preset {
    /// OpenLDAP, and what has the schema of RFC 2798.
    #[default]
    OpenLdap,
    /// Active Directory, and Samba as its domain controller.
    ActiveDirectory,
    /// FreeIPA.
    FreeIpa,
    /// 389 Directory Server.
    Ds389,
}

/// The names of attributes, and the filters, that a preset gives; each may be set otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// The attribute that holds what never changes.
    pub id: &'static str,
    /// The attribute of the user name.
    pub username: &'static str,
    /// The attribute of the mail address.
    pub email: &'static str,
    /// The attribute of the name that people read.
    pub name: &'static str,
    /// Finds a user by name.
    pub user_filter: &'static str,
    /// Finds all groups.
    pub group_filter: &'static str,
    /// The attribute of a group's name.
    pub group_name: &'static str,
    /// The attribute of a group's members.
    pub members: &'static str,
}

impl Preset {
    /// What it gives.
    #[must_use]
    pub const fn defaults(self) -> Defaults {
        match self {
            Self::OpenLdap => Defaults {
                id: "entryUUID",
                username: "uid",
                email: "mail",
                name: "cn",
                user_filter: "(&(objectClass=person)(uid={}))",
                group_filter: "(objectClass=groupOfNames)",
                group_name: "cn",
                members: "member",
            },
            Self::ActiveDirectory => Defaults {
                id: "objectGUID",
                username: "sAMAccountName",
                email: "mail",
                name: "displayName",
                user_filter: "(&(objectCategory=person)(objectClass=user)(sAMAccountName={}))",
                group_filter: "(objectClass=group)",
                group_name: "sAMAccountName",
                members: "member",
            },
            Self::FreeIpa => Defaults {
                id: "ipaUniqueID",
                username: "uid",
                email: "mail",
                name: "displayName",
                user_filter: "(&(objectClass=posixAccount)(uid={}))",
                group_filter: "(objectClass=ipaUserGroup)",
                group_name: "cn",
                members: "member",
            },
            Self::Ds389 => Defaults {
                id: "nsUniqueId",
                username: "uid",
                email: "mail",
                name: "cn",
                user_filter: "(&(objectClass=person)(uid={}))",
                group_filter: "(|(objectClass=groupOfNames)(objectClass=groupOfUniqueNames))",
                group_name: "cn",
                members: "member",
            },
        }
    }

    /// The attributes that say whether an account may be used.
    #[must_use]
    pub const fn flags(self) -> &'static [&'static str] {
        match self {
            Self::OpenLdap => &["pwdAccountLockedTime"],
            Self::ActiveDirectory => &["userAccountControl", "accountExpires"],
            Self::FreeIpa | Self::Ds389 => &["nsAccountLock"],
        }
    }

    /// Those that a login needs besides.
    #[must_use]
    pub const fn login_flags(self) -> &'static [&'static str] {
        match self {
            Self::OpenLdap => &["pwdReset"],
            Self::ActiveDirectory => &["msDS-User-Account-Control-Computed", "pwdLastSet"],
            Self::FreeIpa | Self::Ds389 => &[],
        }
    }

    /// The flag that every account has, so that one without it is one that may not be read.
    #[must_use]
    pub const fn required_flag(self) -> Option<&'static str> {
        match self {
            Self::ActiveDirectory => Some("userAccountControl"),
            Self::OpenLdap | Self::FreeIpa | Self::Ds389 => None,
        }
    }

    /// Whether a continuation reference leads to another naming context, which is no part of what was asked for. Active Directory
    /// has no other ones.
    #[must_use]
    pub const fn refers_elsewhere(self) -> bool {
        matches!(self, Self::ActiveDirectory)
    }
}
