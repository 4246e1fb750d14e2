//! Decodes the text of a body, and explains what may have spoilt one that isn't JSON: shells remove quotes, or keep
//! them, and Windows has encodings of its own. The error tells users whose first attempt fails like this the command
//! that works.

use crate::encoding::utf16;
use crate::error::ApiError;
use crate::{json, memory};

/// The byte order mark, which begins what Windows calls UTF-8.
const MARK: char = '\u{FEFF}';

/// Decodes a body from UTF-8 or UTF-16. `address` is where it was sent to.
pub fn decode(body: Vec<u8>, address: &dyn Fn() -> String) -> Result<String, ApiError> {
    if matches!(body[..], [0xFF, 0xFE, ..]) && !body.contains(&0) {
        // `curl -d @file` leaves out NULs, so that half of a text in UTF-16 is left: all of it if it is ASCII.
        return if body[2..].is_ascii() {
            Ok(String::from_utf8_lossy(&body[2..]).into_owned())
        } else {
            Err(spoilt(
                "half of a file in UTF-16, as PowerShell's > writes it: curl -d @file leaves its NULs out",
                "Save the file as UTF-8, or send it with --data-binary @file in place of -d @file.",
                "只有 UTF-16 文件的一半：请把文件存为 UTF-8，或用 --data-binary @文件 代替 -d @文件".into(),
            ))
        };
    }
    if let Some(text) = utf16(&body) {
        return Ok(text);
    }
    let mut text = String::from_utf8(body).map_err(|error| if looks_like_gbk(error.as_bytes()) { spoilt(
        "not UTF-8 but looks like GBK, in which a Chinese Windows hands over what is typed",
        &format!(
            "Save it in a file as UTF-8, say body.json, and send that: curl {} -d @body.json",
            address()
        ),
        format!("是 GBK 编码，不是 UTF-8：请把它存为 UTF-8 文件（如 body.json），再发送：curl {} -d @body.json", address()),
    ) } else { ApiError::invalid_json("not UTF-8", "不是 UTF-8 编码") })?;
    if text.starts_with(MARK) {
        text.drain(..MARK.len_utf8());
    }
    Ok(text)
}

/// A body of which a tree must be made may have this many values. Each takes up to 700 bytes, a hundred times its text, and
/// agents with long histories send a tenth of it.
const MAX_VALUES: usize = 250_000;

/// Does `work`, which makes a tree of this body; refuses one of which a tree would take too much memory.
pub fn with_tree<R: Send>(text: &str, work: impl FnMut() -> R + Send) -> Result<R, ApiError> {
    if json::has_more_values_than(text, MAX_VALUES) {
        return Err(ApiError::too_many_values(MAX_VALUES));
    }
    Ok(memory::apart(text.len(), work))
}

/// Returns the error for a body that isn't a JSON object; `example` is a body that would be accepted.
pub fn not_an_object(text: &str, error: &serde_json::Error, address: &str, example: &str) -> ApiError {
    let mut begin = text.trim_start().chars();
    let first = begin.next();
    let second = begin.as_str().trim_start().chars().next();
    let in_cmd = || format!("curl {address} -d \"{}\"", example.replace('"', "\\\""));
    match (first, second) {
        (None, _) => ApiError::invalid_json("empty", "是空的"),
        (Some('\''), _) => spoilt(
            "in single quotes, which Windows' cmd keeps, while it takes the double ones away",
            &format!("There this works: {}", in_cmd()),
            format!("在单引号中：cmd 会保留单引号、去掉双引号。cmd 中请这样写：{}", in_cmd()),
        ),
        (Some('{'), Some(c)) if c.is_alphabetic() || c == '_' => spoilt(
            "without the double quotes around its names: PowerShell and cmd take them away",
            &format!(
                "In PowerShell this works: Invoke-RestMethod {address} -Method Post -Body '{example}' and in cmd: {}",
                in_cmd()
            ),
            format!(
                "的名称没有双引号：被 PowerShell 或 cmd 去掉了。PowerShell 中请这样写：Invoke-RestMethod {address} -Method Post -Body '{example}'；cmd 中：{}",
                in_cmd()
            ),
        ),
        (Some('{'), Some('\'')) => spoilt(
            "written with single quotes, and JSON wants double ones",
            &format!(
                "In Windows' cmd this works: {} and in other shells: curl {address} -d '{example}'",
                in_cmd()
            ),
            format!("用了单引号，而 JSON 要用双引号。cmd 中请这样写：{}", in_cmd()),
        ),
        (Some('{'), Some('\\')) => spoilt(
            "full of backslashes before its quotes: only Windows' cmd wants them",
            &format!("In other shells this works: curl {address} -d '{example}'"),
            format!("的引号前有反斜杠：只有 cmd 才需要。其他终端请这样写：curl {address} -d '{example}'"),
        ),
        (Some('{'), Some('“' | '”' | '‘' | '’')) => spoilt(
            "written with typographic quotes",
            "JSON wants straight ones: \"",
            "用了中文引号，而 JSON 要用英文引号 \"".into(),
        ),
        (Some('@'), _) => spoilt(
            "the name of a file, not what is in it",
            &format!(
                "To send a file: curl {address} -d {}",
                text.trim().chars().take(100).collect::<String>()
            ),
            format!("是文件名，而不是文件内容。发送文件请用：curl {address} -d @文件"),
        ),
        (Some(first), _) if first != '{' && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() => {
            ApiError::invalid_json("not a JSON object", "不是 JSON 对象")
        }
        _ => ApiError::invalid_json(
            &format!("not valid JSON: {error}"),
            &format!("不是有效的 JSON（{error}）"),
        ),
    }
}

/// Returns the error for a spoilt body. `chinese` says the same as `how` and `way_out` together.
fn spoilt(how: &str, way_out: &str, chinese: String) -> ApiError {
    ApiError::new(400, "invalid_json", format!("The request body is {how}. {way_out}"))
        .chinese(format!("请求正文{chinese}"))
}

/// Whether all bytes that aren't ASCII form pairs of GBK.
fn looks_like_gbk(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|b| !b.is_ascii()) {
        match rest[at..] {
            [0x81..=0xFE, 0x40..=0x7E | 0x80..=0xFE, ..] => rest = &rest[at + 2..],
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &str = "http://localhost:5001/v1/chat/completions";

    fn message(body: &[u8]) -> String {
        let text = match decode(body.to_vec(), &|| HERE.to_owned()) {
            Ok(text) => text,
            Err(error) => return error.message,
        };
        let error = crate::json::fields(&text).unwrap_err();
        not_an_object(&text, &error, HERE, r#"{"messages":[{"role":"user","content":"Hello"}]}"#).message
    }

    #[test]
    fn what_shells_do() {
        for (body, said) in [
            (
                &b"'{messages:[{role:user,content:Say hi}]}'"[..],
                "curl http://localhost:5001/v1/chat/completions -d \"{\\\"messages\\\"",
            ),
            (b"'{messages:", "cmd"),
            (b"{messages:[{role:user,content:Say", "Invoke-RestMethod http://localhost:5001/"),
            (b"{ 'messages':[]}", "single quotes"),
            (br#"{\"messages\":[]}"#, "backslashes"),
            ("{“messages”:[]}".as_bytes(), "typographic"),
            (b"@body.json", "-d @body.json"),
            (b"", "empty"),
            (b"[1]", "not a JSON object"),
            (b"{\"a\":\xC4\xE3\xBA\xC3}", "GBK"),
            (b"{\"a\":\"\xE9\"}\xFF", "not UTF-8"),
            (b"\xFF\xFE{\"a\":\"`O}Y\"\x80}", "--data-binary"),
        ] {
            let message = message(body);
            assert!(message.contains(said), "{message}");
        }
    }

    #[test]
    fn utf16_is_decoded() {
        let json = r#"{"content":"你好"}"#;
        let utf16 = |unit: fn(u16) -> [u8; 2]| json.encode_utf16().flat_map(unit).collect::<Vec<_>>();
        for body in [
            [vec![0xFF, 0xFE], utf16(u16::to_le_bytes)].concat(),
            [vec![0xFE, 0xFF], utf16(u16::to_be_bytes)].concat(),
            utf16(u16::to_le_bytes),
            format!("\u{FEFF}{json}").into_bytes(),
        ] {
            assert_eq!(decode(body, &|| HERE.to_owned()).unwrap(), json);
        }
        assert_eq!(decode(b"\xFF\xFE{}".to_vec(), &|| HERE.to_owned()).unwrap(), "{}");
    }
}
