-- Events, as long as anything may need them.
create table authlink_events (
  id text not null primary key,
  namespace text not null,
  producer_id text,
  source text not null,
  type text not null,
  subject text,
  occurred text not null,
  accepted bigint not null,
  form bigint not null,
  content_type text,
  extensions text not null,
  data {bytes} not null
);
create index authlink_events_accepted on authlink_events (accepted);
-- Ids of producers, so that what is sent twice is one event.
create table authlink_dedupe (
  namespace text not null,
  source text not null,
  producer_id text not null,
  event_id text not null,
  digest {bytes} not null,
  created bigint not null,
  primary key (namespace, source, producer_id)
);
create index authlink_dedupe_created on authlink_dedupe (created);
-- What is to be delivered: unfinished rows only. An id is never used twice, and a later one was accepted later.
create table authlink_deliveries (
  id {identity},
  event_id text not null,
  endpoint text not null,
  replay bigint not null,
  origin bigint not null,
  subject text,
  attempts bigint not null,
  accepted bigint not null,
  created bigint not null,
  due bigint not null,
  wait bigint not null,
  unique (event_id, endpoint)
) {hot};
create index authlink_deliveries_due on authlink_deliveries (endpoint, due, id);
create index authlink_deliveries_subject on authlink_deliveries (endpoint, subject, id) where subject is not null;
-- How each delivery ended the last time: 1 delivered, 2 dead, 3 skipped.
create table authlink_finished (
  event_id text not null,
  endpoint text not null,
  state bigint not null,
  replay bigint not null,
  attempts bigint not null,
  accepted bigint not null,
  at bigint not null,
  primary key (event_id, endpoint)
);
create index authlink_finished_endpoint on authlink_finished (endpoint, accepted, event_id);
create index authlink_finished_dead on authlink_finished (endpoint) where state = 2;
-- Attempts, the latest last.
create table authlink_attempts (
  id {identity},
  endpoint text not null,
  event_id text not null,
  number bigint not null,
  origin bigint not null,
  at bigint not null,
  took bigint not null,
  outcome text not null,
  status bigint,
  host text not null,
  detail text not null,
  body {bytes} not null
);
create index authlink_attempts_endpoint on authlink_attempts (endpoint, id);
-- What the answers of each endpoint have led to, and its counts.
create table authlink_endpoints (
  uid text not null primary key,
  open_until bigint,
  rounds bigint not null default 0,
  failing_since bigint,
  failures bigint not null default 0,
  noticed bigint not null default 0,
  disabled text,
  disabled_at bigint,
  delivered bigint not null default 0,
  failed bigint not null default 0,
  dead bigint not null default 0,
  skipped bigint not null default 0,
  success_at bigint,
  success_took bigint,
  failure_at bigint,
  failure text,
  pending bigint not null default 0
) {hot};
-- Endpoints of which another process has to look into the store.
create table authlink_wakeups (
  id {identity},
  shard text not null,
  endpoint text not null,
  pending bigint not null
) {hot};
create index authlink_wakeups_shard on authlink_wakeups (shard);
