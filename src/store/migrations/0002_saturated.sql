-- Databases whose pool at a gateway has no room for callers.
create table authlink_saturated (
  uid text not null,
  replica bigint not null,
  primary key (uid, replica)
);
