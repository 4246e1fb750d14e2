//! An answer that is sound: every byte as it comes.

use super::attempt::{Answer, FailedAttempt, broke_off, empty_answer, no_answer};
use super::finish::Served;
use super::{Client, Relay};
use crate::json;

/// What is read of it at a time.
const READ_BYTES: usize = 16 * 1024;

impl Relay {
    #[inline(never)]
    pub(super) fn relay_bytes(
        &mut self,
        answer: &mut Answer,
        model: &str,
    ) -> Result<Served, Box<FailedAttempt>> {
        let mut buffer = vec![0; READ_BYTES];
        let mut read = answer.read(&mut buffer).map_err(|failure| no_answer(&failure))?;
        if read == 0 {
            return Err(empty_answer());
        }
        if let Some(leader) = &self.leader {
            leader.begin(answer.head(model, self.metrics.backup.as_ref()));
        }
        let content_type = json::quoted(answer.header("content-type").unwrap_or_default());
        let mut bytes = read;
        let recorded = |bytes: usize| Some(format!(r#"{{"content_type":{content_type},"bytes":{bytes}}}"#));
        let headers = self.with_proxy_headers(answer.returned_headers(), model);
        let Client::Waiting(exchange) = std::mem::replace(&mut self.client, Client::Answered) else {
            return Ok(Served::ClientLeft(None)); // no comment ever goes before it
        };
        self.metrics.first_token.get_or_insert_with(|| self.began.elapsed());
        let Ok(mut stream) = exchange.start(answer.status(), &headers) else {
            return Ok(Served::ClientLeft(recorded(bytes)));
        };
        while read > 0 {
            if stream.write(&buffer[..read]).is_err() {
                return Ok(Served::ClientLeft(recorded(bytes)));
            }
            read = match answer.read(&mut buffer) {
                Ok(read) => read,
                Err(failure) => {
                    stream.abort();
                    let error = broke_off(&failure);
                    let (status, said) = (error.status, error.in_words().to_owned());
                    return Ok(Served::BrokenOff {
                        error: error.object(),
                        status,
                        said,
                        partial: recorded(bytes),
                    });
                }
            };
            bytes += read;
        }
        self.client = Client::Streaming(stream);
        Ok(Served::Whole(recorded(bytes)))
    }
}
