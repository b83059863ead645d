//! Who made a request.

use std::sync::Arc;

/// Who made a request, as far as its credentials prove it.
#[derive(Debug, PartialEq, Eq)]
pub struct Caller {
    /// The name of a `[consumer.NAME]`, or what a token says.
    pub consumer: Arc<str>,
    pub tier: Option<Arc<str>>,
    /// Of the consumer's, sorted.
    pub grants: Arc<[Arc<str>]>,
}

impl Caller {
    pub fn granted(&self, grant: &str) -> bool {
        self.grants.binary_search_by(|known| (**known).cmp(grant)).is_ok()
    }
}
