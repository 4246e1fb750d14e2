//! Answers in audio: every byte is relayed as it comes.

use super::answer::Answer;
use super::attempt::{broke_off, empty_answer, no_answer};
use super::outcome::{FailedAttempt, Served};
use super::state::{Client, Relay};
use crate::object::object;

/// The number of bytes read at a time.
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
        if let Some(leader) = &self.sharing.leader {
            leader.begin(answer.head(model, self.record.metrics.backup.as_ref()));
        }
        let content_type = answer.header("content-type").unwrap_or_default().to_owned();
        let mut bytes = read;
        let recorded = |bytes: usize| {
            let recorded = object! {"content_type": &content_type, "bytes": bytes};
            Some(recorded.to_string())
        };
        let headers = self.with_proxy_headers(answer.returned_headers(), model);
        let Client::Waiting(exchange) = std::mem::replace(&mut self.client.state, Client::Answered) else {
            return Ok(Served::ClientLeft(None)); // comments are never sent before audio
        };
        self.record.metrics.first_token.get_or_insert_with(|| self.asked.began.elapsed());
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
        self.client.state = Client::Streaming(stream);
        Ok(Served::Whole(recorded(bytes)))
    }
}
