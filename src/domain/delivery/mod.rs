//! Webhook delivery: every decision of it. When an event is sent, to whom, how many at once, under which signature and in which form,
//! what an answer means, and when an endpoint is left alone. Time and randomness are arguments.

pub mod circuit;
pub mod cloudevents;
pub mod disable;
pub mod event;
pub mod event_type;
pub mod headers;
pub mod health;
pub mod keys;
pub mod outage;
pub mod outcome;
pub mod payload;
pub mod retry;
pub mod scheduler;
