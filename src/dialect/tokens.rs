//! Estimates how many tokens a text has, in one pass over its characters and without a vocabulary.
//!
//! Measured on texts that its costs were not fitted to (each half of the files by a fit to the other), of 200
//! characters to 100 KB: for prose, chat, code, data and logs in English and Chinese, 4971 of 4994 estimates are within
//! 20 % both of o200k_base and of the median of eight vocabularies, and 4 % off on average. For German, French, Russian
//! and Japanese, where those two are up to a third apart, 602 of 632 are, and 7 % off.

use std::borrow::Cow;

use Kind::*;

/// All costs are in hundredths of a token. They come from a least-squares fit over prose, chat, code, data
/// and logs, to the geometric mean of what o200k_base counts and of the median of eight vocabularies: that
/// one, cl100k_base, Llama 3.1's, Qwen 3's, DeepSeek V3's, Gemma 3's, Mistral's Tekken and Claude 2's.
const TOKEN: u64 = 100;

/// How often a token ends between two letters, from 0 (nearly never) to 6 (more often than not): 26 digits
/// for each first letter. It tells words from names and from base64, and English from other languages.
const PAIRS: &[u8; 26 * 26] = b"\
    60005102120000505000300001456616564120552663552666063525056036004515533036552545511556354556256434355425\
    34103225555000541000521015366520451552330662502665165566154035634226623545654426650665265555155550466656\
    10000004530000002000206050355515555555553556064666662565261545556456654565552635500155365055245532252606\
    21651656464435225623366526362013054624522466103554251000500432000000500000023426641631556015136110255125\
    56556665566255654565056556352104152614110552104165064656155226355533531035554646542560365525226221363405\
    20311215453000505000455045155606363555552565554565563663165025555116621655034636564566466655626651666406\
    6555465656513110650256555446661663465665556665465533";
/// The cost of a small letter after a small one, by the entry of both in `PAIRS`.
const SMALL: [u64; 7] = [1, 3, 8, 13, 27, 61, 124];
/// The cost of a capital after a capital, likewise: few words in capitals are in a vocabulary.
const CAPITAL: [u64; 7] = [8, 8, 8, 34, 57, 57, 57];
/// The cost of a small letter after one capital (`The`), and after several (`HTTPServer`, base64).
const AFTER_CAPITAL: [u64; 2] = [20, 165];
/// The cost of a capital after a small letter, which starts a word of its own.
const CAMEL: u64 = 67;
/// The cost of a letter with a diacritic, and of the letter after it: few words that have any are in a vocabulary.
const ACCENT: u64 = 52;

/// The first of the letters with two diacritics, mostly Vietnamese ones: short words of that language are whole tokens.
const STACKED: char = '\u{1e00}';
/// Chinese punctuation, as wide as a character.
const WIDE_MARK: Kind = Script([8, 87, 48]);
/// Dashes, curly quotes, arrows, boxes: a row of the same symbol takes few tokens.
const SYMBOL: Kind = Script([73, 115, 131]);
const SAME_SYMBOL: u64 = 20;
/// Chinese and Japanese characters that are common, two of which often share a token.
const HAN: Kind = Script([32, 123, 58]);
/// The additional cost of a rare or traditional character.
const RARE: u64 = 124;
/// The blocks of 64 characters from U+4E00 on, one bit each; set if most characters in the block are rare.
const RARE_HAN: [u64; 6] = [
    0x7c1f_0b05_f000_1600,
    0xc00f_fc0e_0f00_e400,
    0xe586_6cc1_cebd_cbf9,
    0xbd3e_15bf_7ff9_76d3,
    0xfff7_e9cd_0bff_741b,
    0x0000_0000_0000_00ff,
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Small,
    Capital,
    Accented,
    Digit,
    Space,
    Tab,
    Newline,
    Mark,
    /// Any other character, with its costs: after a space, which shares its token; first in its run elsewhere; later in
    /// its run.
    Script([u8; 3]),
}

impl Kind {
    fn of(c: char) -> Self {
        match c {
            'a'..='z' => Small,
            'A'..='Z' => Capital,
            '0'..='9' => Digit,
            ' ' => Space,
            '\t' => Tab,
            '\n' | '\r' => Newline,
            ..='\u{7f}' => Mark,
            '\u{c0}'..='\u{24f}' | STACKED..='\u{1eff}' => Accented,
            ..='\u{bf}' | '\u{2000}'..='\u{2bff}' | '\u{fe00}'..='\u{fe0f}' => SYMBOL,
            '\u{400}'..='\u{52f}' => Script([0, 120, 17]),
            // Greek, Armenian, Hebrew, Arabic.
            ..='\u{7ff}' => Script([0, 90, 24]),
            '\u{3000}'..='\u{303f}' | '\u{ff00}'..='\u{ff65}' => WIDE_MARK,
            // Hiragana, katakana, hangul.
            '\u{3040}'..='\u{309f}' => Script([40, 47, 40]),
            '\u{30a0}'..='\u{30ff}' | '\u{ff66}'..='\u{ff9f}' => Script([33, 95, 66]),
            '\u{1100}'..='\u{11ff}' | '\u{ac00}'..='\u{d7af}' => Script([3, 131, 68]),
            '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' => HAN,
            // The scripts of India and South-East Asia; emoji, and the rest.
            ..='\u{ffff}' => Script([10, 60, 45]),
            '\u{1f000}'..='\u{1faff}' => Script([199, 215, 198]),
            _ => Script([250; 3]),
        }
    }

    fn is_latin(self) -> bool {
        matches!(self, Small | Capital | Accented)
    }
}

/// Estimates how many tokens a text has. More text never counts less: no character's cost is below zero, and none
/// depends on what follows.
pub fn estimate(text: &str) -> u64 {
    let (mut before, mut last, mut sum) = (Newline, '\n', 0);
    // The lengths of the run of this kind, of the run of capitals, and of the run of this character before this one.
    let (mut run, mut capitals, mut repeats) = (0_usize, 0_usize, 0_usize);
    for c in text.chars() {
        let kind = Kind::of(c);
        let same = kind == before || kind.is_latin() && before.is_latin();
        let at = if same { run + 1 } else { 1 };
        repeats = if c == last { repeats + 1 } else { 0 };
        sum += match kind {
            Small | Capital | Accented if !same => first_letter(before, last, run),
            // `AAAA`, as in the base64 of zeros: tokens have up to eight letters and more.
            Small | Capital if repeats > 2 => 11,
            Capital if before == Capital => CAPITAL[pair(last, c)],
            Capital => CAMEL,
            Small | Accented if capitals > 1 => AFTER_CAPITAL[1],
            Small | Accented if last.max(c) >= STACKED => 0,
            Small | Accented if !last.is_ascii() || !c.is_ascii() => ACCENT,
            Small if before == Capital => AFTER_CAPITAL[0],
            Small | Accented => SMALL[pair(last, c)],
            // Digits are cut into threes, and never share a token with the space before.
            Digit => [2, 118, 2][at % 3],
            // A space shares a token with the word after it: an indentation is one token for all but its last space.
            Space if before == Newline => 74,
            Space => [85, 79, 1][at.min(3) - 1],
            Tab => [91, 13][at.min(2) - 1],
            // A newline often shares a token with the mark that ends the line.
            Newline if before == Mark || before == WIDE_MARK => 5,
            Newline if before == Space => 29,
            Newline => [107, 27][at.min(2) - 1],
            Mark if before == Space => 25,
            Mark if repeats > 0 => 3,
            Mark if at > 2 && !r#""),;/><:{"#.contains(c) => 80,
            Mark => [79, 6, 16][at.min(3) - 1],
            SYMBOL if repeats > 0 => SAME_SYMBOL,
            Script([spaced, first, next]) => {
                let cost = match before {
                    _ if same => next,
                    Space => spaced,
                    _ => first,
                };
                u64::from(cost) + if kind == HAN && is_rare(c) { RARE } else { 0 }
            }
        };
        capitals = if kind == Capital { capitals + 1 } else { 0 };
        (before, last, run) = (kind, c, at);
    }
    sum.div_ceil(TOKEN)
}

/// The number of samples, and their size, by which a long body is counted.
const SAMPLES: usize = 16;
const SAMPLE_BYTES: usize = 512;
/// Longer words are base64, which the model sees as a picture or a file.
const LONGEST_WORD: usize = 256;

/// Estimates how many tokens the body of a request has, without what is written in base64.
pub fn of_body(body: &str) -> u64 {
    let step = (body.len() / SAMPLES).max(SAMPLE_BYTES);
    let (mut counted, mut sum) = (0, 0);
    for at in (0..body.len()).step_by(step) {
        let [start, end] = [at, at + SAMPLE_BYTES].map(|mut at| {
            at = at.min(body.len());
            while !body.is_char_boundary(at) {
                at -= 1;
            }
            at
        });
        counted += end - start;
        sum += of_sample(body, start, end);
    }
    // Scales the samples to the whole body, without any danger of exceeding 2^64.
    sum * body.len() as u64 / counted.max(1) as u64
}

/// Estimates a sample. Long words that a picture or a file is written in are cut out, and each piece of text between them
/// is estimated as a whole.
fn of_sample(body: &str, start: usize, end: usize) -> u64 {
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=' | '-' | '_');
    let (mut sum, mut piece, mut from) = (0, start, start);
    while let Some(begin) = body[from..end].find(is_base64).map(|at| from + at) {
        from = body[begin..end].find(|c| !is_base64(c)).map_or(end, |length| begin + length);
        if from - begin > LONGEST_WORD && is_in_a_file(&body[..begin]) {
            sum += estimate(&unescaped(&body[piece..begin]));
            piece = from;
        }
    }
    sum + estimate(&unescaped(&body[piece..end]))
}

/// Returns whether what follows this part of a body is in a string that holds a file in base64: a data URL, or a field
/// for the bytes of a picture, a document or a sound.
fn is_in_a_file(before: &str) -> bool {
    let Some(quote) = memchr::memrchr(b'"', before.as_bytes()) else {
        return false;
    };
    let key = before[..quote].trim_end().strip_suffix(':').map(str::trim_end).unwrap_or_default();
    before[quote + 1..].starts_with("data:")
        || ["\"data\"", "\"file_data\""].iter().any(|name| key.ends_with(name))
}

/// Returns a piece of JSON text with its escapes resolved: a character counts the same however it is written.
fn unescaped(written: &str) -> Cow<'_, str> {
    if !written.contains('\\') {
        return Cow::Borrowed(written);
    }
    let mut text = String::with_capacity(written.len());
    let mut units = Vec::new();
    let mut rest = written;
    loop {
        let unit = rest.strip_prefix("\\u").and_then(|digits| u16::from_str_radix(digits.get(..4)?, 16).ok());
        if let Some(unit) = unit {
            units.push(unit);
            rest = &rest[6..];
            continue;
        }
        text.extend(char::decode_utf16(units.drain(..)).flatten());
        let Some(at) = rest.find('\\') else {
            break;
        };
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        if rest.starts_with("\\u")
            && rest.len() >= 6
            && rest[2..].bytes().take(4).all(|b| b.is_ascii_hexdigit())
        {
            continue;
        }
        let mut escaped = rest[1..].chars();
        match escaped.next() {
            Some('n') => text.push('\n'),
            Some('t') => text.push('\t'),
            Some(other @ ('"' | '\\' | '/')) => text.push(other),
            _ => {} // cut off by the end of the sample, or a rare one
        }
        rest = escaped.as_str();
    }
    text.push_str(rest);
    Cow::Owned(text)
}

/// Returns the cost of the first letter of a word: little after a space, or after a single mark that often belongs to
/// the same token (`.len`, `_id`, `(self`).
fn first_letter(before: Kind, last: char, run: usize) -> u64 {
    match (before, last) {
        (Space, _) if run == 1 => 0,
        (Space, _) => 12,
        (Mark, '.' | '_' | '-') if run == 1 => 28,
        (Mark, '/' | ',' | '=' | '(' | '#') if run == 1 => 54,
        (Mark, '"' | '`') if run == 1 => 106,
        (Mark, _) if run == 1 => 71,
        _ => 90,
    }
}

/// Returns the entry of two letters in `PAIRS`, whatever their case.
fn pair(first: char, second: char) -> usize {
    let place = |c: char| (c.to_ascii_lowercase() as usize).wrapping_sub('a' as usize) % 26;
    usize::from(PAIRS[place(first) * 26 + place(second)] - b'0')
}

fn is_rare(han: char) -> bool {
    let block = (han as usize).wrapping_sub(0x4e00) / 64;
    RARE_HAN.get(block / 64).is_none_or(|bits| bits >> (block % 64) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts with the number of tokens that o200k_base counts.
    const COUNTED: [(&str, u64); 10] = [
        (ENGLISH, 78),
        (CHINESE, 86),
        (MIXED, 95),
        (RUST, 104),
        (PYTHON, 101),
        (JSON, 84),
        (LOG, 137),
        (BASE64, 142),
        (GERMAN, 67),
        (RUSSIAN, 60),
    ];
    const ENGLISH: &str = "\
        You are a careful assistant for a small team of gardeners. Before you answer, look at the \
        season and at the weather of the last few days, and say plainly when you do not know enough. \
        Never recommend a treatment that could harm bees. If somebody asks for a plan, give it as a \
        short list with one line for each week, and close with what they should watch for.";
    const CHINESE: &str = "昨天晚上我们把旧的服务器换掉了，今天早上大家都说网页打开得快多了。不过还有两个小问题：一是图片偶尔显示不出来，\
        二是手机上登录以后会跳回首页。请你先看一下日志，找出原因，再告诉我们需要改哪些地方。如果今天来不及，明天上午也可以，周末之前弄好就行。";
    const MIXED: &str = "## 安装\n\n先把压缩包解开，然后在终端里运行 `./start.sh --port 8080`。程序会读取 config.toml，\
        如果找不到 API key，就会提示 `missing key: OPEN_API_KEY`。\n\n- **Linux**：需要 glibc 2.31 以上\n\
        - **Windows**：双击 start.bat 即可\n\n更多选项请看 [docs/options.md](docs/options.md)。\n";
    const RUST: &str = r#"/// The longest line of a file, without its end.
pub fn longest_line(path: &Path) -> io::Result<Option<String>> {
    let reader = BufReader::new(File::open(path)?);
    let mut longest: Option<String> = None;
    for line in reader.lines() {
        let line = line?;
        if longest.as_ref().is_none_or(|l| l.len() < line.len()) {
            longest = Some(line);
        }
    }
    Ok(longest)
}
"#;
    const PYTHON: &str = r#"class Basket:
    """Fruit, by name and weight in grams."""

    def __init__(self, limit_grams=5000):
        self.items = {}
        self.limit_grams = limit_grams

    def add(self, name, grams):
        if sum(self.items.values()) + grams > self.limit_grams:
            raise ValueError(f"{name} is too heavy: {grams} g")
        self.items[name] = self.items.get(name, 0) + grams
"#;
    const JSON: &str = concat!(
        r#"{"name":"find_recipe","description":"Looks for recipes by what is in the kitchen.","inpu"#,
        r#"t_schema":{"type":"object","properties":{"ingredients":{"type":"array","items":{"type":""#,
        r#"string"},"description":"What is there, one word each"},"max_minutes":{"type":"integer",""#,
        r#"minimum":5,"default":45},"vegetarian":{"type":"boolean"}},"required":["ingredients"],"ad"#,
        r#"ditionalProperties":false}}"#,
    );
    const LOG: &str = "2031-04-17T08:15:02.114Z INFO  relay: POST /v1/messages 200 in 1843 ms (9120 bytes)\n\
        2031-04-17T08:15:07.530Z WARN  relay: upstream 10.20.30.40:443 closed the connection, try 2 of 3\n\
        2031-04-17T08:15:09.001Z ERROR relay: id=7f3a9c1e-52b8-4d06-9e1b-0c4d8a6f2b73 gave up, 3 tries\n";
    const BASE64: &str = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAYAAADED76LAAAAb0lEQVR4nD3KwQ2AIBAF0f8L\
        bcUWjL1YiRXYgB3YgiVYgXc8GA8cCIuLicmeJm8IVd2cc0NKqQcQSilXjPEUkZ0kJ1Vda60B\
        QCC5mdkCYCQ5k3xyzrcxprf3XkRk996frbXDOXd47/cf3bQ8aV7yPAAAAABJRU5ErkJggg==";
    const GERMAN: &str = "\
        Der Zug nach Norden hat heute leider eine halbe Stunde Verspätung, weil zwischen den beiden \
        Bahnhöfen ein Baum auf die Gleise gestürzt ist. Wer einen Anschluss erreichen muss, wendet \
        sich bitte an das Personal am Schalter. Getränke und belegte Brötchen gibt es solange \
        kostenlos im Wartesaal.";
    const RUSSIAN: &str = "\
        Вчера вечером мы заменили старый сервер, и сегодня страницы открываются гораздо быстрее. \
        Остались две небольшие ошибки: иногда не показываются картинки, а на телефоне после входа \
        снова появляется главная страница. Посмотрите, пожалуйста, журнал и скажите, что нужно \
        исправить.";

    #[test]
    fn a_fifth_off_at_most() {
        for (text, counted) in COUNTED {
            let estimated = estimate(text);
            assert!(estimated.abs_diff(counted) * 5 <= counted, "{estimated} for {counted}: {text}");
        }
    }

    #[test]
    fn nothing_is_nothing_and_a_character_is_something() {
        assert_eq!(estimate(""), 0);
        for text in
            ["a", "Z", "7", " ", "\n", "\t", "{", "é", "ệ", "，", "好", "の", "한", "я", "ك", "ก", "→", "🙂"]
        {
            assert!((1..=3).contains(&estimate(text)), "{text}");
        }
    }

    #[test]
    fn more_text_never_counts_less() {
        let all: String = COUNTED.iter().flat_map(|(text, _)| [text, " ", text, "\r\n\t\t"]).collect();
        let mut before = 0;
        for (end, _) in all.char_indices() {
            let now = estimate(&all[..end]);
            assert!(now >= before, "{now} after {before}: {}", &all[..end]);
            before = now;
        }
    }

    #[test]
    fn a_body_counts_as_its_texts_do() {
        let texts = COUNTED.iter().filter(|(text, _)| *text != BASE64);
        let counted = texts.clone().map(|(_, counted)| counted).sum::<u64>() * 200;
        let messages =
            texts.map(|(text, _)| format!(r#"{{"role":"user","content":{}}}"#, crate::json::quoted(text)));
        let messages = messages.collect::<Vec<_>>().join(",");
        let body = |image: &str| {
            format!(
                r#"{{"messages":[{}],"image":"data:image/png;base64,{image}"}}"#,
                vec![messages.as_str(); 200].join(",")
            )
        };
        for image in ["", &"iVBORw0KGgo/".repeat(100_000)] {
            let estimated = of_body(&body(image));
            assert!(estimated > counted && estimated < counted * 4 / 3, "{estimated} for {counted}"); // JSON included
        }
        assert_eq!((of_body(""), of_body("{}")), (0, estimate("{}")));
    }

    #[test]
    fn a_row_of_the_same_is_few_tokens() {
        for text in ["A", "a", " ", "-", "=", "─"] {
            assert!(estimate(&text.repeat(1000)) < 250, "{text}");
        }
    }

    #[test]
    fn a_body_counts_the_same_however_it_is_written() {
        let text = format!("{CHINESE}\n{RUSSIAN} \"\u{1f600}\" {ENGLISH}\t").repeat(40);
        let body = |text: &str| of_body(&format!(r#"{{"messages":[{{"role":"user","content":{text}}}]}}"#));
        let plain = serde_json::to_string(&text).unwrap();
        let escape = |c: char| match c {
            ' '..='~' => c.to_string(),
            _ => c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
        };
        let escaped = plain.chars().map(escape).collect::<String>();
        let counted = [body(&plain), body(&escaped), estimate(&text)];
        let (least, most) = (counted.iter().min().unwrap(), counted.iter().max().unwrap());
        assert!(most * 10 <= least * 11, "{counted:?}");
    }

    #[test]
    fn a_file_in_a_body_counts_nothing_and_a_long_word_does() {
        let word = "aGVsbG8gd29ybGQK".repeat(2000);
        for file in [
            format!(r#"{{"image_url":{{"url":"data:image/png;base64,{word}"}}}}"#),
            format!(r#"{{"source":{{"media_type":"image/png","data": "{word}"}}}}"#),
            format!(r#"{{"file":{{"file_data" : "{word}"}}}}"#),
        ] {
            assert!(of_body(&file) < 1000, "{} for {file:.60}", of_body(&file));
        }
        let (text, expected) = (of_body(&format!(r#"{{"content":"{word}"}}"#)), estimate(&word));
        assert!(text.abs_diff(expected) * 10 < expected, "{text} {expected}");
    }
}
