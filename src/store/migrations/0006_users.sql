-- Sources of users: one for each object that syncs, by its uid, and how far its sync is. Where a user has identities of several
-- sources, the lowest priority comes first, and those with authority decide who may log in.
create table authlink_sources (
  id bigint not null primary key,
  uid text not null unique,
  -- Of the object, for its events.
  namespace text not null,
  name text not null,
  priority bigint not null,
  authority bigint not null,
  -- What the source gave to go on from, and the digest of what was read when the guard last let a run through.
  cursor text,
  config text,
  full_at bigint,
  -- What the guard holds back, as JSON.
  held text
);
-- Users: version counts the changes that were told of by events.
create table authlink_users (
  id text not null primary key,
  state text not null,
  username text,
  email text,
  email_source bigint,
  name text,
  version bigint not null,
  created bigint not null,
  updated bigint not null,
  last_login bigint
);
-- What a source says of a user. The keys are digests by which group members are found.
create table authlink_identities (
  source bigint not null,
  external_id text not null,
  user_id text not null,
  state text not null,
  enabled bigint not null,
  username text,
  username_key {bytes},
  email text,
  email_verified bigint not null,
  name text,
  dn text,
  dn_key {bytes},
  primary_group text,
  link_key text,
  attributes text,
  hash {bytes},
  missing_since bigint,
  missing_runs bigint not null,
  primary key (source, external_id)
);
create index authlink_identities_dn on authlink_identities (source, dn_key);
create index authlink_identities_username on authlink_identities (source, username_key);
create index authlink_identities_user on authlink_identities (user_id);
create index authlink_identities_link on authlink_identities (link_key) where link_key is not null;
create index authlink_identities_missing on authlink_identities (source, missing_since) where missing_since is not null;
create index authlink_identities_off on authlink_identities (source) where enabled = 0 and state = 'active';
-- Groups of a source, and their members by key. A member is lost when the source does not name it any more.
create table authlink_groups (
  source bigint not null,
  external_id text not null,
  name text not null,
  dn text not null,
  dn_key {bytes} not null,
  relative_id text,
  hash {bytes} not null,
  members_hash {bytes},
  version bigint not null,
  missing_since bigint,
  missing_runs bigint not null,
  primary key (source, external_id)
);
create index authlink_groups_dn on authlink_groups (source, dn_key);
create table authlink_members (
  source bigint not null,
  group_id text not null,
  member {bytes} not null,
  lost bigint not null,
  primary key (source, group_id, member)
);
create index authlink_members_member on authlink_members (source, member);
create index authlink_members_lost on authlink_members (source) where lost = 1;
-- Which groups lead to which role, nested ones included; and who has which role by which source.
create table authlink_role_groups (
  source bigint not null,
  role text not null,
  group_id text not null,
  primary key (source, role, group_id)
);
create table authlink_roles (
  user_id text not null,
  role text not null,
  source bigint not null,
  primary key (user_id, role, source)
);
create index authlink_roles_source on authlink_roles (source);
-- Runs: one that has not ended is the only one of its source that may write.
create table authlink_sync_runs (
  id text not null primary key,
  source bigint not null,
  config text not null,
  started bigint not null,
  updated bigint not null,
  ended bigint,
  token text,
  outcome text,
  counts text
);
create index authlink_sync_runs_source on authlink_sync_runs (source, started);
-- What a run that can be resumed has seen.
create table authlink_sync_seen (
  run text not null,
  seen {bytes} not null,
  primary key (run, seen)
);
-- What was lost, and when: the guard counts over a day.
create table authlink_sync_losses (
  source bigint not null,
  class text not null,
  at bigint not null,
  count bigint not null
);
create index authlink_sync_losses_source on authlink_sync_losses (source, class, at);
-- Entries that cannot be used.
create table authlink_quarantine (
  source bigint not null,
  subject text not null,
  reason text not null,
  run text not null,
  first_seen bigint not null,
  primary key (source, subject)
);
-- What happened, to be told of: a gateway makes events of it.
create table authlink_outbox (
  id text not null primary key,
  source bigint not null,
  kind text not null,
  subject text not null,
  at bigint not null,
  data text not null
);
