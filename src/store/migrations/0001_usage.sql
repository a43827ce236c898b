-- What gateways count, by object (its uid), five minutes and replica. Whole numbers of milliseconds are times after 1970, by the
-- store's clock.
create table authlink_counts (
  uid text not null,
  slot bigint not null,
  replica bigint not null,
  requests bigint not null,
  errors bigint not null,
  limited bigint not null,
  latencies text not null,
  changed bigint not null,
  primary key (uid, slot, replica)
);
create index authlink_counts_changed on authlink_counts (changed);
create index authlink_counts_slot on authlink_counts (slot);
-- Gateways that write.
create table authlink_replicas (
  replica bigint not null primary key,
  seen bigint not null
);
-- Circuits that are not closed: 1 half-open, 2 open.
create table authlink_circuits (
  uid text not null,
  replica bigint not null,
  state bigint not null,
  primary key (uid, replica)
);
