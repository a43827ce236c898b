-- The resource version as of which a gateway has every Webhook.
alter table authlink_replicas add column webhooks bigint;
