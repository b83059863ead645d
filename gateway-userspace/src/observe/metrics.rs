//! The Prometheus exposition: everything is read from the shards when somebody scrapes.

mod connections;
mod format;
mod http;
mod kernel;
mod own;
mod page;
mod policies;
mod registry;
mod services;
mod upstreams;

pub use format::Format;
pub use registry::Counter;

use self::page::{Labels, Page};
use super::stats::{Histogram, HistogramTotal, Sharded};
use crate::daemon::Control;

/// What one scrape is told.
pub struct Scrape<'a> {
    control: &'a Control,
    kernel: kernel::Facts,
}

impl<'a> Scrape<'a> {
    /// Looks at what others have to wait for meanwhile: the kernel half.
    pub fn begin(control: &'a Control) -> Self {
        Scrape { control, kernel: kernel::Facts::of(control) }
    }

    /// Writes all of it, in pieces of some ten kilobytes, as long as they are taken; false: they were not.
    pub fn write(&self, format: Format, take: &mut dyn FnMut(Vec<u8>) -> bool) -> bool {
        let (control, kernel, page) = (self.control, &self.kernel, &mut Page::new(format, take));
        http::routes(control, page);
        connections::all(control, page);
        upstreams::all(control, page);
        policies::auths(control, page);
        policies::caches(control, page);
        policies::limits(control, kernel, page);
        kernel::all(kernel, page);
        services::kernel(control, kernel, page);
        services::spliced(control, page);
        own::all(control, page);
        page.end()
    }
}

/// Over all workers.
fn sum<T: Default>(shards: &Sharded<T>, of: impl Fn(&T) -> &Histogram) -> HistogramTotal {
    let mut total = HistogramTotal::default();
    shards.iter().for_each(|shard| total.add(of(shard)));
    total
}

/// The last label is there only where it has a value.
fn but_for_none<'a>(labels: Labels<'a>) -> Labels<'a> {
    match labels {
        [rest @ .., (_, "")] => rest,
        all => all,
    }
}
