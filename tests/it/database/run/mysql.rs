//! MariaDB. MySQL differs in what is said at the tests.

mod faults;
mod limits;
mod values;
