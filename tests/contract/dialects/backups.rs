//! Backups, asked in each dialect.

use super::*;

fn settings(backup: &Upstream, more: &str) -> String {
    format!(
        "BACKUPS=stranger,ollama\nSTRANGER_BASE_URL={}/stranger\nSTRANGER_MODEL=s\n\
         OLLAMA_BASE_URL={}\nOLLAMA_MODEL=llama3.2\nRETRIES=0\n{more}",
        backup.url(),
        backup.url()
    )
}

/// One backup doesn't know the dialect, the next one answers.
#[test]
fn a_backup_answers_in_the_dialect_that_was_asked() {
    in_every_dialect(|dialect| {
        let upstream = Upstream::start(move |request, answer| match subject(request) {
            "no credits" => answer.json(402, &(dialect.error)(402, "no credits")),
            "broken" => answer.json(502, &(dialect.error)(502, "broken")),
            "an error inside" => answer.json(200, dialect.failed_bodies[0].0),
            "nothing" => answer.json(200, dialect.empty[0]),
            "opening" => {
                answer.events(dialect.opening);
                answer.close();
            }
            "failing" => {
                answer.events(&[dialect.opening, &[dialect.failures[0].0]].concat());
                answer.end();
            }
            _ => answer.close(),
        });
        let backup = Upstream::start(move |request, answer| {
            if request.path.contains("/stranger/") {
                answer.json(404, "{}")
            } else {
                answer.good(dialect, request)
            }
        });
        let proxy = Proxy::before(&upstream, &settings(&backup, ""));
        for (case, kinds) in [
            ("no credits", &[false, true][..]),
            ("broken", &[false, true]),
            ("an error inside", &[false, true]),
            ("closed", &[false, true]),
            ("nothing", &[false]),
            ("opening", &[true]),
            ("failing", &[true]),
        ] {
            for streamed in kinds {
                let body = (dialect.request)("openrouter/free", &format!("«{case}»"), *streamed);
                let response = proxy.post(dialect.path, &body);
                let name = format!("{} {case}, streamed: {streamed}: {response:?}", dialect.name);
                assert_eq!((response.status, response.text()), (200, &*dialect.good(*streamed)), "{name}");
                assert_eq!(response.header("x-proxy-backup"), Some("ollama"), "{name}");
                assert_eq!(response.header("x-proxy-model"), Some("openrouter/free -> llama3.2"), "{name}");
                let asked = backup.received().split_off(backup.calls() - 2);
                let end = &dialect.path["/v1".len()..];
                let paths = asked.iter().map(|request| request.path.as_str()).collect::<Vec<_>>();
                // What has a translation is tried in that, too.
                let is_told_in_chat = ["/messages", "/responses"].contains(&end);
                let last = if is_told_in_chat { "/chat/completions" } else { end };
                assert_eq!(paths, [format!("/api/v1/stranger{last}"), format!("/api/v1{end}")], "{name}");
                assert_eq!(asked[1].body, body.replace("openrouter/free", "llama3.2"), "{name}");
                assert!(
                    asked.iter().all(|r| r.headers.iter().all(|(_, value)| !value.contains(KEY))),
                    "{name}"
                );
            }
        }
    });
}
