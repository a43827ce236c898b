//! `LdapDirectory`: how its servers are reached, how it is laid out, and how its users are found.

use std::time::Duration;

use kube::ResourceExt;
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};

use super::{Lookup, Resolved, Unresolved, source, text};
use crate::{
    api::v1alpha1::{
        LdapDirectory,
        database::TlsMode as Verification,
        ldap_directory::{
            self as api, BindMode, GroupMatch as ApiGroupMatch, LdapDirectorySpec, LinkMode, Referrals,
            Scope as ApiScope, TlsMode,
        },
    },
    backends::directory::{
        DirectorySettings, GroupSearch, Layout, Login, Protection, Scope, ServerUrl, UserSearch,
    },
    cluster::references::References,
    domain::{
        cron::Cron,
        schedule::Schedule,
        sync::{
            dn::Dn,
            filter::Template,
            linking::LinkPolicy,
            mapping::{GroupMapping, MemberValue, UserMapping},
            preset::Preset,
            roles::{GroupMatch, RoleMapping},
        },
    },
};

/// How long a server may be silent while it answers: searches take longer than probes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Attributes that hold passwords, hashes of them, or keys.
const SECRET_ATTRIBUTES: &[&str] = &[
    "userPassword",
    "unicodePwd",
    "authPassword",
    "sambaNTPassword",
    "sambaLMPassword",
    "krbPrincipalKey",
    "ipaNTHash",
    "pwdHistory",
    "passwordHistory",
    "supplementalCredentials",
    "dBCSPwd",
    "ntPwdHistory",
    "lmPwdHistory",
    "ms-Mcs-AdmPwd",
];

/// A directory with everything that its spec names.
#[derive(Clone, Debug)]
pub struct ResolvedDirectory {
    /// How its servers are reached.
    pub servers: DirectorySettings,
    /// How it is read.
    pub layout: Layout,
    /// Finds a user by the name that was typed.
    pub login_filter: Template,
    /// The name to bind with, in which `{}` is the user name; none where the user is searched first.
    pub dn_template: Option<String>,
    /// Which groups give which roles.
    pub roles: Vec<RoleMapping>,
    /// When syncs start; none where that is some time after the last one.
    pub cron: Option<Cron>,
}

impl ResolvedDirectory {
    /// Equal for directories in which the same users log in alike: it is a digest of secrets, and must not leave the process.
    #[must_use]
    pub fn key(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.servers.key());
        hash.update(format!("{:?} {:?} {:?}", self.layout, self.login_filter, self.dn_template));
        hash.finalize().into()
    }
}

/// Looks up everything that the spec names.
///
/// # Errors
/// The first thing that is missing or cannot serve, by name.
pub async fn resolve(
    directory: &LdapDirectory,
    references: &dyn References,
) -> Result<Resolved<ResolvedDirectory>, Unresolved> {
    let lookup = Lookup { references, namespace: &directory.namespace().unwrap_or_default() };
    let spec = &directory.spec;
    let (users, login_filter) = users(spec, link_policy(spec, lookup).await?)?;
    let layout = Layout {
        ignore_references: match spec.referrals {
            Some(Referrals::Ignore) => true,
            Some(Referrals::Incomplete) => false,
            None => users.mapping.preset.refers_elsewhere(),
        },
        page_size: spec.page_size,
        allow_unpaged: spec.allow_unpaged,
        ..Layout::new(users, groups(spec)?)
    };
    let servers = servers(spec, lookup).await?;
    let roles = roles(spec)?;
    let schedule = spec.sync.as_ref().and_then(|sync| sync.schedule.as_deref());
    let cron = schedule.map(Cron::parse).transpose();
    let cron = cron.map_err(|error| invalid("spec.sync.schedule", error))?;
    let names = spec.bind.secret_ref.iter().chain(&spec.tls.client_cert_ref).map(|it| &it.name);
    let source = source(lookup, names, |salt| servers.login.fingerprint(&servers.tls, salt)).await?;
    let dn_template = spec.authentication.dn_template.clone();
    let resolved = ResolvedDirectory { servers, layout, login_filter, dn_template, roles, cron };
    Ok(Resolved { targets: vec![resolved], schedule: Schedule::from(&spec.health_check), source })
}

#[expect(clippy::needless_pass_by_value, reason = "a text or an error, as it comes")]
fn invalid(field: &str, problem: impl ToString) -> Unresolved {
    Unresolved::Invalid { field: field.to_owned(), problem: problem.to_string() }
}

async fn servers(spec: &LdapDirectorySpec, lookup: Lookup<'_>) -> Result<DirectorySettings, Unresolved> {
    let servers = spec.urls.iter().map(|url| url.parse::<ServerUrl>());
    let servers = servers.collect::<Result<Vec<_>, _>>().map_err(|error| invalid("spec.urls", error))?;
    let encrypted = spec.urls.iter().all(|url| url.to_ascii_lowercase().starts_with("ldaps:"));
    let protection = match spec.tls.mode {
        None if encrypted => Protection::Ldaps,
        None | Some(TlsMode::StartTls) => Protection::StartTls,
        Some(TlsMode::Ldaps) => Protection::Ldaps,
        Some(TlsMode::None) => Protection::None,
    };
    let api::Tls { ca_ref, client_cert_ref, server_name, .. } = &spec.tls;
    let verification =
        if protection == Protection::None { Verification::None } else { Verification::VerifyFull };
    Ok(DirectorySettings {
        servers,
        protection,
        tls: lookup.tls(verification, ca_ref.as_ref(), client_cert_ref.as_ref()).await?,
        server_name: server_name.clone(),
        insecure: spec.insecure,
        login: login(spec, lookup).await?,
        connect_timeout: spec.health_check.timeout.get(),
        answer_timeout: ANSWER_TIMEOUT,
    })
}

async fn login(spec: &LdapDirectorySpec, lookup: Lookup<'_>) -> Result<Login, Unresolved> {
    let name = match (spec.bind.mode, &spec.bind.secret_ref) {
        (BindMode::External, _) => return Ok(Login::External),
        (BindMode::Anonymous, _) | (BindMode::Simple, None) => return Ok(Login::Anonymous),
        (BindMode::Simple, Some(reference)) => &reference.name,
    };
    let secret = lookup.secret(name).await?;
    let value = |key: &'static str| {
        let value = text(&secret, name, key)?;
        // A directory would take an empty password for no login at all (RFC 4513, section 5.1.2).
        if value.expose_secret().is_empty() {
            return Err(Unresolved::SecretInvalidValue {
                name: format!("the Secret {name}"),
                key: key.to_owned(),
                problem: "is empty".to_owned(),
            });
        }
        Ok(value)
    };
    let (username, password) = (value("username")?, value("password")?);
    Ok(Login::Simple { name: username.expose_secret().to_owned(), password })
}

const fn preset(preset: api::Preset) -> Preset {
    match preset {
        api::Preset::OpenLdap => Preset::OpenLdap,
        api::Preset::ActiveDirectory => Preset::ActiveDirectory,
        api::Preset::FreeIpa => Preset::FreeIpa,
        api::Preset::Ds389 => Preset::Ds389,
    }
}

const fn scope(scope: ApiScope) -> Scope {
    match scope {
        ApiScope::Base => Scope::Base,
        ApiScope::One => Scope::One,
        ApiScope::Sub => Scope::Sub,
    }
}

fn base(text: &str, field: &str) -> Result<String, Unresolved> {
    if text.contains('=') {
        return Ok(text.trim().to_owned());
    }
    Err(invalid(field, format!("{text} is no DN: write it as ou=people,dc=example,dc=org")))
}

fn template(text: &str, field: &str) -> Result<Template, Unresolved> {
    Template::parse(text).map_err(|error| invalid(field, error))
}

/// How all users are found, and one by a name that was typed.
fn users(spec: &LdapDirectorySpec, link: LinkPolicy) -> Result<(UserSearch, Template), Unresolved> {
    let (search, preset) = (&spec.user_search, preset(spec.preset));
    let field = "spec.userSearch.filter";
    let by_name = template(search.filter.as_deref().unwrap_or(preset.defaults().user_filter), field)?;
    let filter = match &search.list_filter {
        Some(list) => template(list, "spec.userSearch.listFilter")?.fill(b""),
        None => by_name
            .listing()
            .map_err(|error| invalid(field, format!("{error}: set spec.userSearch.listFilter")))?,
    };
    let mut mapping = UserMapping::new(preset);
    let api::UserAttributes { uid, username, email, name, extra } = search.attributes.clone();
    mapping.id = uid.unwrap_or(mapping.id);
    mapping.username = username.unwrap_or(mapping.username);
    mapping.email = email.or(mapping.email);
    mapping.name = name.or(mapping.name);
    for (key, attribute) in &extra {
        let field = format!("spec.userSearch.attributes.extra[{key}]");
        let is_name = |char: char| char.is_ascii_alphanumeric() || matches!(char, '.' | ';' | '-');
        if attribute.is_empty() || !attribute.chars().all(is_name) {
            return Err(invalid(&field, format!("{attribute} is no name of an attribute")));
        }
        if SECRET_ATTRIBUTES.iter().any(|secret| secret.eq_ignore_ascii_case(attribute)) {
            return Err(invalid(
                &field,
                format!("{attribute} holds passwords or keys, which are never stored: remove it"),
            ));
        }
    }
    mapping.extra = extra;
    mapping.trust_email = search.trust_email;
    mapping.link = link;
    let base = base(&search.base, "spec.userSearch.base")?;
    Ok((UserSearch { base, scope: scope(search.scope), filter, mapping }, by_name))
}

fn groups(spec: &LdapDirectorySpec) -> Result<Option<GroupSearch>, Unresolved> {
    let (Some(search), preset) = (&spec.group_search, preset(spec.preset)) else { return Ok(None) };
    let field = "spec.groupSearch.filter";
    let by_member = template(search.filter.as_deref().unwrap_or(preset.defaults().group_filter), field)?;
    let filter = by_member.listing().map_err(|error| invalid(field, error))?;
    let mut mapping = GroupMapping::new(preset);
    let api::GroupAttributes { uid, members, member_value } = search.attributes.clone();
    mapping.id = uid.unwrap_or(mapping.id);
    mapping.name = search.name_attribute.clone().unwrap_or(mapping.name);
    mapping.members = members.or_else(|| by_member.place_attribute()).unwrap_or(mapping.members);
    mapping.member_value = match member_value {
        Some(api::MemberValue::Username) => MemberValue::Username,
        None if mapping.members.eq_ignore_ascii_case("memberUid") => MemberValue::Username,
        Some(api::MemberValue::Dn) | None => MemberValue::Dn,
    };
    let base = base(&search.base, "spec.groupSearch.base")?;
    Ok(Some(GroupSearch { base, scope: scope(search.scope), filter, mapping }))
}

async fn link_policy(spec: &LdapDirectorySpec, lookup: Lookup<'_>) -> Result<LinkPolicy, Unresolved> {
    let Some(policy) = spec.sync.as_ref().map(|sync| &sync.link_policy) else {
        return Ok(LinkPolicy::Never);
    };
    Ok(match (policy.mode, &policy.attribute, &policy.config_map_ref) {
        (LinkMode::VerifiedEmail, _, _) => LinkPolicy::VerifiedEmail {
            domains: policy.domains.iter().map(|domain| domain.to_lowercase()).collect(),
        },
        (LinkMode::Attribute, Some(attribute), _) => {
            if !spec.user_search.attributes.extra.contains_key(attribute) {
                let problem =
                    format!("{attribute} is no key of spec.userSearch.attributes.extra: add it there");
                return Err(invalid("spec.sync.linkPolicy.attribute", problem));
            }
            LinkPolicy::Attribute(attribute.clone())
        }
        (LinkMode::Explicit, _, Some(reference)) => {
            let map = lookup.references.config_map(lookup.namespace, &reference.name).await?;
            let map = map.ok_or_else(|| Unresolved::RefNotFound {
                what: format!("the ConfigMap {}", reference.name),
            })?;
            LinkPolicy::Explicit(map.iter().map(|(id, person)| (id.clone(), person.clone())).collect())
        }
        _ => LinkPolicy::Never,
    })
}

fn roles(spec: &LdapDirectorySpec) -> Result<Vec<RoleMapping>, Unresolved> {
    let mappings = spec.sync.iter().flat_map(|sync| &sync.role_mappings).enumerate();
    let mapping = |(index, mapping): (usize, &api::RoleMapping)| {
        let group = match &mapping.group {
            ApiGroupMatch { dn: Some(dn), .. } => GroupMatch::Dn(Dn::parse(dn)),
            ApiGroupMatch { name: Some(name), .. } => GroupMatch::Name(name.clone()),
            ApiGroupMatch { regex, .. } => {
                let field = format!("spec.sync.roleMappings[{index}].group.regex");
                let pattern = GroupMatch::pattern(regex.as_deref().unwrap_or_default());
                pattern.map_err(|problem| invalid(&field, problem))?
            }
        };
        Ok(RoleMapping { group, role: mapping.role.clone(), nested: mapping.nested })
    };
    mappings.map(mapping).collect()
}
