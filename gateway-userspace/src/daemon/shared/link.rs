//! Connections to the store.

use std::{io, time::Duration};

use redis::{AsyncConnectionConfig, Client, RedisError, TlsCertificates, aio::MultiplexedConnection};

use crate::config::model::Shared as Config;

/// Whoever does not answer for so long, or for the budget, is not there.
const PATIENCE: Duration = Duration::from_millis(250);
/// How long a read waits for news.
pub const BLOCK: Duration = Duration::from_secs(2);

pub fn patience(config: &Config) -> Duration {
    PATIENCE.max(config.budget)
}

pub struct Link {
    /// For what is answered at once.
    pub main: MultiplexedConnection,
    /// For what waits for news.
    pub news: MultiplexedConnection,
}

impl Link {
    /// # Errors
    /// There is none: why, without secrets.
    pub async fn open(config: &Config) -> Result<Link, String> {
        let url = config.redis.url()?;
        let client = client(&url, config)?;
        let patience = patience(config);
        let open = |longest: Duration| {
            let client = client.clone();
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(patience * 4))
                .set_response_timeout(Some(longest));
            async move {
                let opened = client.get_multiplexed_async_connection_with_config(&config);
                opened.await.map_err(|error| error.to_string())
            }
        };
        Ok(Link { main: open(patience).await?, news: open(BLOCK + patience * 4).await? })
    }
}

fn client(url: &str, config: &Config) -> Result<Client, String> {
    let client = match &config.ca {
        Some(file) if url.starts_with("rediss://") => {
            let pem = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
            Client::build_with_tls(url, TlsCertificates { client_tls: None, root_cert: Some(pem) })
        }
        _ => Client::open(url),
    };
    client.map_err(|error| error.to_string())
}

/// An answer that does not come is an error like others.
pub fn late() -> RedisError {
    io::Error::new(io::ErrorKind::TimedOut, "it does not answer in time").into()
}
