//! `gateway why`

use clap::Args;
use serde_json::Value;

use super::{
    Global, Outcome,
    ban::text,
    client, exit,
    output::{self, BOLD},
};

#[derive(Debug, Args)]
#[command(
    after_help = "Each worker remembers the last 512 requests that were refused, failed (500 and above) or were \
                        slow (`access_log.keep.slow`, else 1s); not with access_log.to = \"off\". Of an address both \
                        halves tell: bans, blocks and limits in the kernel, and its requests."
)]
pub struct Why {
    /// A request's id, as `x-request-id` and the access log have it, its trace's id, or an address
    of: String,
}

impl Why {
    pub fn run(self, global: &Global) -> Outcome {
        // A path has no room for what an id never has.
        let of: String = self.of.chars().filter(|c| c.is_ascii_hexdigit() || "-.:".contains(*c)).collect();
        let told = client::get(global, &format!("/v1/why/{of}"))?;
        output::print(global, &told, || describe(global, &told));
        Ok(exit::OK)
    }
}

fn describe(global: &Global, told: &Value) -> String {
    let mut out = String::new();
    for reason in told["reasons"].as_array().into_iter().flatten() {
        out += &format!("{}\n", clean(&text(reason)));
    }
    if let Some(request) = told["request"].as_object() {
        out += &format!("\n{}\n", global.paint(BOLD, "the request"));
        for (key, value) in request {
            out += &format!("  {key:<14} {}\n", clean(&text(value)));
        }
    }
    for request in told["requests"].as_array().into_iter().flatten() {
        let of = |key: &str| clean(&text(&request[key]));
        out += &format!(
            "  {} {} {} {} {} {}\n",
            of("ts"),
            of("status"),
            of("method"),
            of("path"),
            of("why"),
            of("id")
        );
    }
    for drop in told["drops"].as_array().into_iter().flatten() {
        out +=
            &format!("  drop: {} to {}\n", clean(&text(&drop["reason"])), clean(&text(&drop["destination"])));
    }
    out
}

/// One line, and no control characters of others.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
