-- Who may do what only one process at a time may do, and until when. A row stays for good, so that an epoch is never used twice.
create table authlink_leases (
  name text not null primary key,
  owner text not null,
  epoch bigint not null,
  expires bigint not null
);
