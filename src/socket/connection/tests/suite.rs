//! The cases of the Autobahn test suite (groups 1 to 7, 9 and 10; 12 and 13 are about compression, which is not offered here), by
//! their numbers, against a protocol that echoes. The suite's own tool needs Python 2. Where it takes more than one outcome, the
//! one of this server stands here.

use super::*;

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CONTINUATION: u8 = 0x80;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
/// Taken off a first byte, it says that more frames of the message follow.
const FIN: u8 = 0x80;

/// The bound of messages in these tests: the size of the suite's largest.
const BOUND: usize = 16 << 20;

/// The Greek word of many of the suite's texts; its second letter has three bytes.
const KOSME: &[u8] = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5";

/// Sends back what it gets.
struct Echo;

impl Protocol for Echo {
    fn text(&mut self, text: &str, out: &mut Outbox) -> Flow {
        out.text(&[text.as_bytes()]);
        Flow::Go
    }

    fn binary(&mut self, payload: &[u8], out: &mut Outbox) -> Flow {
        out.binary(payload);
        Flow::Go
    }

    fn deliver(&mut self, _: u64, _: &mut Outbox) -> Flow {
        Flow::Go
    }
}

/// How a client's bytes come to the server.
#[derive(Clone, Copy)]
enum Chops {
    AtOnce,
    ByFrame,
    Of(usize),
}

type Frame = (u8, Vec<u8>);

struct Case {
    id: String,
    sent: Vec<Vec<u8>>,
    chops: Chops,
    wanted: Vec<Frame>,
}

/// A frame as clients send it.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![first];
    match payload.len() {
        short @ 0..126 => bytes.push(0x80 | short as u8),
        middle @ 126..0x1_0000 => {
            bytes.push(0x80 | 0x7e);
            bytes.extend((middle as u16).to_be_bytes());
        }
        long => {
            bytes.push(0x80 | 0x7f);
            bytes.extend((long as u64).to_be_bytes());
        }
    }
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// The frames that a client sends, and then, unless the server is to close by itself, its close frame.
fn case(id: impl Into<String>, chops: Chops, frames: &[(u8, &[u8])], wanted: &[(u8, &[u8])], code: u16) -> Case {
    let mut sent: Vec<_> = frames.iter().map(|(first, payload)| masked(*first, payload)).collect();
    if code == 1000 {
        sent.push(masked(CLOSE, &1000_u16.to_be_bytes()));
    }
    let mut wanted: Vec<_> = wanted.iter().map(|(first, payload)| (*first, payload.to_vec())).collect();
    wanted.push((CLOSE, code.to_be_bytes().to_vec()));
    Case { id: id.into(), sent, chops, wanted }
}

/// One frame that comes back.
fn echoed(id: impl Into<String>, chops: Chops, first: u8, payload: &[u8]) -> Case {
    case(id, chops, &[(first, payload)], &[(first, payload)], 1000)
}

/// A message in frames of these payloads.
fn fragments<'a>(first: u8, payloads: impl IntoIterator<Item = &'a [u8]>) -> Vec<(u8, &'a [u8])> {
    let mut frames: Vec<_> = payloads.into_iter().map(|payload| (CONTINUATION & !FIN, payload)).collect();
    frames.first_mut().unwrap().0 = first & !FIN;
    frames.last_mut().unwrap().0 |= FIN;
    frames
}

/// Runs a case; returns what the server sent. A close frame comes without its reason.
async fn run(case: &Case) -> Vec<Frame> {
    let (client, server) = duplex(256 << 10);
    let (mut reader, mut writer) = tokio::io::split(client);
    let settings = Settings { max_frame_bytes: BOUND, ..Settings::default() };
    let (inbox, stop) = (Inbox::default(), CancellationToken::new());
    let connection = Connection::new(server, Box::new(Echo), inbox, Arc::new(settings), None, stop);
    let write = async move {
        let all = case.sent.concat();
        let pieces: Vec<&[u8]> = match case.chops {
            Chops::AtOnce => vec![&all],
            Chops::ByFrame => case.sent.iter().map(Vec::as_slice).collect(),
            Chops::Of(bytes) => all.chunks(bytes).collect(),
        };
        for piece in pieces {
            // The server may have closed before it has read everything.
            if writer.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        writer
    };
    let read = async move {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).await.unwrap();
        (frames(&bytes), reader)
    };
    let client = async {
        // The server waits for the client to close, too: both halves go here.
        let ((frames, _reader), _writer) = tokio::join!(read, write);
        frames
    };
    let ((), frames) =
        timeout(Duration::from_secs(60), async { tokio::join!(connection.run(), client) }).await.unwrap();
    frames
}

fn frames(mut bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let [first, length, rest @ ..] = bytes {
        let (length, rest) = match length {
            126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
            127 => (u64::from_be_bytes(rest[..8].try_into().unwrap()) as usize, &rest[8..]),
            short => (usize::from(*short), rest),
        };
        let payload = if *first == CLOSE { &rest[..length.min(2)] } else { &rest[..length] };
        frames.push((*first, payload.to_vec()));
        bytes = &rest[length..];
    }
    frames
}

async fn check(cases: Vec<Case>) {
    for case in cases {
        let sent = run(&case).await;
        // Not as one, because the messages are long.
        assert_eq!(sent.len(), case.wanted.len(), "case {}", case.id);
        for (sent, wanted) in sent.iter().zip(&case.wanted) {
            assert!(sent == wanted, "case {}: {:?}… instead of {:?}…", case.id, short(sent), short(wanted));
        }
    }
}

fn short((first, payload): &Frame) -> (u8, &[u8]) {
    (*first, &payload[..payload.len().min(32)])
}

#[tokio::test(start_paused = true)]
async fn group_1_framing() {
    let mut cases = Vec::new();
    for (group, first, byte) in [("1.1", TEXT, b'*'), ("1.2", BINARY, 0xfe)] {
        let sizes = [0, 125, 126, 127, 128, 65_535, 65_536, 65_536];
        for (number, size) in (1..).zip(sizes) {
            let chops = if number == 8 { Chops::Of(997) } else { Chops::AtOnce };
            cases.push(echoed(format!("{group}.{number}"), chops, first, &vec![byte; size]));
        }
    }
    check(cases).await;
}

#[tokio::test(start_paused = true)]
async fn group_2_pings_and_pongs() {
    let ping = |id, chops, payload: &[u8]| case(id, chops, &[(PING, payload)], &[(PONG, payload)], 1000);
    let texts: Vec<_> = (0..10).map(|number| format!("payload-{number}")).collect();
    let all = |first: u8| texts.iter().map(|text| (first, text.as_bytes())).collect::<Vec<_>>();
    check(vec![
        ping("2.1", Chops::AtOnce, b""),
        ping("2.2", Chops::AtOnce, b"Hello, world!"),
        ping("2.3", Chops::AtOnce, b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"),
        ping("2.4", Chops::AtOnce, &[0xfe; 125]),
        case("2.5", Chops::AtOnce, &[(PING, &[0xfe; 126])], &[], 1002),
        ping("2.6", Chops::Of(1), &[0xfe; 125]),
        case("2.7", Chops::AtOnce, &[(PONG, b"")], &[], 1000),
        case("2.8", Chops::AtOnce, &[(PONG, b"unsolicited pong payload")], &[], 1000),
        case("2.9", Chops::AtOnce, &[(PONG, b"unsolicited"), (PING, b"ping")], &[(PONG, b"ping")], 1000),
        case("2.10", Chops::AtOnce, &all(PING), &all(PONG), 1000),
        case("2.11", Chops::Of(1), &all(PING), &all(PONG), 1000),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn groups_3_and_4_reserved_bits_and_opcodes() {
    let hello: &[u8] = b"Hello, world!";
    let mut cases = Vec::new();
    let mut refused = |id: &str, chops, first, payload: &[u8]| {
        let frames = [(TEXT, hello), (first, payload), (PING, b"")];
        cases.push(case(id, chops, &frames, &frames[..1], 1002));
    };
    let reserved = |bits: u8| bits << 4;
    refused("3.2", Chops::AtOnce, TEXT | reserved(2), hello);
    refused("3.3", Chops::ByFrame, TEXT | reserved(3), hello);
    refused("3.4", Chops::Of(1), TEXT | reserved(4), hello);
    for (group, opcode) in [("4.1", 0x83), ("4.2", 0x8b)] {
        refused(&format!("{group}.3"), Chops::AtOnce, opcode + 2, b"");
        refused(&format!("{group}.4"), Chops::AtOnce, opcode + 3, b"reserved opcode payload");
        refused(&format!("{group}.5"), Chops::Of(1), opcode + 4, b"reserved opcode payload");
    }
    let mut alone = |id: &str, first, payload: &[u8]| {
        cases.push(case(id, Chops::AtOnce, &[(first, payload)], &[], 1002));
    };
    alone("3.1", TEXT | reserved(1), hello);
    alone("3.5", BINARY | reserved(5), b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff");
    alone("3.6", PING | reserved(6), hello);
    alone("3.7", CLOSE | reserved(7), b"");
    for (group, opcode) in [("4.1", 0x83), ("4.2", 0x8b)] {
        alone(&format!("{group}.1"), opcode, b"");
        alone(&format!("{group}.2"), opcode + 1, b"reserved opcode payload");
    }
    check(cases).await;
}

#[tokio::test(start_paused = true)]
async fn group_5_fragmentation() {
    const ALL: [Chops; 3] = [Chops::AtOnce, Chops::ByFrame, Chops::Of(1)];
    let (a, b): (&[u8], &[u8]) = (b"fragment1", b"fragment2");
    let (text, more) = (TEXT & !FIN, CONTINUATION & !FIN);
    let whole: &[(u8, &[u8])] = &[(TEXT, b"fragment1fragment2")];
    let mut cases = vec![
        case("5.1", Chops::AtOnce, &[(PING & !FIN, a), (CONTINUATION, b)], &[], 1002),
        case("5.2", Chops::AtOnce, &[(PONG & !FIN, a), (CONTINUATION, b)], &[], 1002),
    ];
    for (number, chops) in (3..).zip(ALL) {
        cases.push(case(format!("5.{number}"), chops, &[(text, a), (CONTINUATION, b)], whole, 1000));
    }
    for (number, chops) in (6..).zip(ALL) {
        let frames: [(u8, &[u8]); 3] = [(text, a), (PING, b"ping payload"), (CONTINUATION, b)];
        cases.push(case(format!("5.{number}"), chops, &frames, &[(PONG, b"ping payload"), whole[0]], 1000));
    }
    for (first_number, first) in [(9, CONTINUATION), (12, more)] {
        for (number, chops) in (first_number..).zip(ALL) {
            let frames: [(u8, &[u8]); 2] = [(first, b"non-continuation payload"), (TEXT, b"Hello, world!")];
            cases.push(case(format!("5.{number}"), chops, &frames, &[], 1002));
        }
    }
    let frames: [(u8, &[u8]); 4] = [(text, a), (CONTINUATION, b), (more, b"fragment3"), (TEXT, b"fragment4")];
    cases.push(case("5.15", Chops::AtOnce, &frames, whole, 1002));
    for (id, first) in [("5.16", more), ("5.17", CONTINUATION)] {
        let once: [(u8, &[u8]); 3] = [(first, b"fragment1"), (text, b"fragment2"), (CONTINUATION, b"fragment3")];
        cases.push(case(id, Chops::AtOnce, &once.repeat(2), &[], 1002));
    }
    cases.push(case("5.18", Chops::AtOnce, &[(text, a), (TEXT, b)], &[], 1002));
    let frames: [(u8, &[u8]); 7] = [
        (text, a),
        (more, b),
        (PING, b"pongme 1!"),
        (more, b"fragment3"),
        (more, b"fragment4"),
        (PING, b"pongme 2!"),
        (CONTINUATION, b"fragment5"),
    ];
    let wanted: [(u8, &[u8]); 3] =
        [(PONG, b"pongme 1!"), (PONG, b"pongme 2!"), (TEXT, b"fragment1fragment2fragment3fragment4fragment5")];
    cases.push(case("5.19", Chops::AtOnce, &frames, &wanted, 1000));
    cases.push(case("5.20", Chops::ByFrame, &frames, &wanted, 1000));
    check(cases).await;
}

#[tokio::test(start_paused = true)]
async fn group_6_text_in_fragments() {
    let greeting = "Hello-µ@ßöäüàá-UTF-8!!".as_bytes();
    let invalid = [KOSME, b"\xed\xa0\x80edited"].concat();
    let octets = |text| fragments(TEXT, <[u8]>::chunks(text, 1));
    let empty: &[u8] = b"";
    let (head, tail) = greeting.split_at(11);
    // In 6.4 nothing follows what is wrong: the server must not wait for it.
    let chopped = |id: &str, first: &[u8], wrong: &[u8], rest: &[u8]| {
        let frame = masked(TEXT, &[first, wrong, rest].concat());
        let header = frame.len() - first.len() - wrong.len() - rest.len();
        let (first, frame) = frame[..header + first.len() + wrong.len()].split_at(header + first.len());
        let wanted = vec![(CLOSE, 1007_u16.to_be_bytes().to_vec())];
        Case { id: id.to_owned(), sent: vec![first.to_vec(), frame.to_vec()], chops: Chops::ByFrame, wanted }
    };
    let begun = [KOSME, b"\xf4"].concat();
    check(vec![
        echoed("6.1.1", Chops::AtOnce, TEXT, b""),
        case("6.1.2", Chops::AtOnce, &fragments(TEXT, [empty; 3]), &[(TEXT, b"")], 1000),
        case("6.1.3", Chops::AtOnce, &fragments(TEXT, [empty, b"middle", empty]), &[(TEXT, b"middle")], 1000),
        echoed("6.2.1", Chops::AtOnce, TEXT, greeting),
        case("6.2.2", Chops::AtOnce, &fragments(TEXT, [head, tail]), &[(TEXT, greeting)], 1000),
        case("6.2.3", Chops::AtOnce, &octets(greeting), &[(TEXT, greeting)], 1000),
        case("6.2.4", Chops::AtOnce, &octets(KOSME), &[(TEXT, KOSME)], 1000),
        case("6.3.1", Chops::AtOnce, &[(TEXT, &invalid)], &[], 1007),
        case("6.3.2", Chops::AtOnce, &octets(&invalid), &[], 1007),
        case("6.4.1", Chops::ByFrame, &[(TEXT & !FIN, KOSME), (0, b"\xf4\x90\x80\x80")], &[], 1007),
        case("6.4.2", Chops::ByFrame, &[(TEXT & !FIN, &begun), (0, b"\x90")], &[], 1007),
        chopped("6.4.3", KOSME, b"\xf4\x90\x80\x80", b"edited"),
        chopped("6.4.4", &begun, b"\x90", b"\x80\x80edited"),
    ])
    .await;
}

/// Every text comes whole, octet by octet, and in frames of one octet.
#[tokio::test(start_paused = true)]
async fn group_6_valid_and_invalid_texts() {
    let mut cases = Vec::new();
    for (group, is_valid, texts) in texts() {
        for (number, text) in (1..).zip(texts) {
            // Of the prefixes of a valid text, and of the boundaries, some are valid.
            let is_valid = is_valid.unwrap_or_else(|| std::str::from_utf8(&text).is_ok());
            let code = if is_valid { 1000 } else { 1007 };
            let echo: &[(u8, &[u8])] = &[(TEXT, &text)];
            let wanted = if is_valid { echo } else { &[] };
            let id = format!("6.{group}.{number}");
            for chops in [Chops::AtOnce, Chops::Of(1)] {
                cases.push(case(&id, chops, &[(TEXT, &text)], wanted, code));
            }
            cases.push(case(&id, Chops::AtOnce, &fragments(TEXT, text.chunks(1)), wanted, code));
        }
    }
    assert_eq!(cases.len(), 3 * 132);
    check(cases).await;
}

/// A group of texts: its number, whether all of them are valid or none is, and they.
type Group = (u32, Option<bool>, Vec<Vec<u8>>);

fn of<const N: usize>(texts: [&[u8]; N]) -> Vec<Vec<u8>> {
    texts.map(<[u8]>::to_vec).into()
}

/// The texts of 6.5 to 6.23.
fn texts() -> Vec<Group> {
    let of_characters = ["hello$world", "hello¢world", "hello€world", "hello𤭢world"].map(str::as_bytes);
    let code_point = |code: u32| char::from_u32(code).unwrap().to_string().into_bytes();
    let noncharacters = (0..=16).flat_map(|plane: u32| [plane << 16 | 0xfffe, plane << 16 | 0xffff]).map(code_point);
    let mut groups = vec![
        (5, Some(true), [of(of_characters), of([KOSME])].concat()),
        (6, None, (1..=KOSME.len()).map(|length| KOSME[..length].to_vec()).collect()),
        (7, Some(true), of([b"\x00", b"\xc2\x80", b"\xe0\xa0\x80", b"\xf0\x90\x80\x80"])),
        (9, Some(true), of([b"\x7f", b"\xdf\xbf", b"\xef\xbf\xbf", b"\xf4\x8f\xbf\xbf"])),
        (11, None, of([b"\xed\x9f\xbf", b"\xee\x80\x80", b"\xef\xbf\xbd", b"\xf4\x8f\xbf\xbf", b"\xf4\x90\x80\x80"])),
        (22, Some(true), noncharacters.collect()),
        (23, Some(true), (0xb9..=0xbf).map(|last| vec![0xef, 0xbf, last]).collect()),
    ];
    groups.extend(invalid_texts().into_iter().map(|(group, texts)| (group, Some(false), texts)));
    groups
}

fn invalid_texts() -> Vec<(u32, Vec<Vec<u8>>)> {
    // Each start byte with a space behind it.
    let lonely = |starts: std::ops::RangeInclusive<u8>| starts.flat_map(|start| [start, b' ']).collect::<Vec<_>>();
    let lonely = [0xc0..=0xdf, 0xe0..=0xef, 0xf0..=0xf7, 0xf8..=0xfb, 0xfc..=0xfd].map(lonely);
    let stray = |count: usize| [0x80, 0xbf].into_iter().cycle().take(count).collect::<Vec<u8>>();
    let stray = [of([b"\x80", b"\xbf"]), (2..=6).map(stray).collect(), vec![(0x80..=0xbf).collect()]].concat();
    // Sequences without their last byte: the smallest of each length, and the largest.
    let smallest = of([b"\xc0", b"\xe0\x80", b"\xf0\x80\x80", b"\xf8\x80\x80\x80", b"\xfc\x80\x80\x80\x80"]);
    let largest = of([b"\xdf", b"\xef\xbf", b"\xf7\xbf\xbf", b"\xfb\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf"]);
    let cut = [smallest.clone(), largest].concat();
    let ended = |last: u8| smallest.iter().map(|text| [text.as_slice(), &[last]].concat()).collect::<Vec<_>>();
    let overlong =
        of([b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf", b"\xf8\x87\xbf\xbf\xbf", b"\xfc\x83\xbf\xbf\xbf\xbf"]);
    // The second and third bytes of surrogates; the first is always the same.
    let surrogate = |rest: [u8; 2]| vec![0xed, rest[0], rest[1]];
    let highs = [[0xa0, 0x80], [0xad, 0xbf], [0xae, 0x80], [0xaf, 0xbf]].map(surrogate);
    let lows = [[0xb0, 0x80], [0xbe, 0x80], [0xbf, 0xbf]].map(surrogate);
    let pairs = highs.iter().flat_map(|high| [&lows[0], &lows[2]].map(|low| [high.as_slice(), low].concat()));
    vec![
        (8, of([b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80"])),
        (10, of([b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf\xbf"])),
        (12, stray),
        (13, lonely.into()),
        (14, cut.clone()),
        (15, vec![cut.concat()]),
        (16, of([b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"])),
        (17, ended(0xaf)),
        (18, overlong),
        (19, ended(0x80)),
        (20, [highs.as_slice(), &lows].concat()),
        (21, pairs.collect()),
    ]
}

#[tokio::test(start_paused = true)]
async fn group_7_closing() {
    let normal: &[u8] = &1000_u16.to_be_bytes();
    let hello: &[u8] = b"Hello World!";
    let long = vec![b'*'; 256 << 10];
    // The client's close frame stands among the frames here.
    let closed = |id: &str, frames: &[(u8, &[u8])], wanted: &[(u8, &[u8])]| {
        let mut case = case(id, Chops::AtOnce, frames, wanted, 1000);
        case.sent.pop();
        case
    };
    let close = |id: String, payload: &[u8], code: u16| {
        let mut case = case(id, Chops::AtOnce, &[(CLOSE, payload)], &[], code);
        case.sent.truncate(1);
        case
    };
    let with_reason = |reason: &[u8]| [normal, reason].concat();
    let mut empty = closed("7.3.1", &[(CLOSE, b"")], &[]);
    empty.wanted = vec![(CLOSE, Vec::new())];
    let mut cases = vec![
        echoed("7.1.1", Chops::AtOnce, TEXT, hello),
        closed("7.1.2", &[(CLOSE, normal), (CLOSE, normal)], &[]),
        closed("7.1.3", &[(CLOSE, normal), (PING, b"")], &[]),
        closed("7.1.4", &[(CLOSE, normal), (TEXT, hello)], &[]),
        closed("7.1.5", &[(TEXT & !FIN, b"fragment1"), (CLOSE, normal), (CONTINUATION, b"fragment2")], &[]),
        closed("7.1.6", &[(TEXT, &long), (CLOSE, normal), (PING, b"")], &[(TEXT, &long)]),
        empty,
        close("7.3.2".to_owned(), b"a", 1002),
        close("7.3.3".to_owned(), normal, 1000),
        close("7.3.4".to_owned(), &with_reason(hello), 1000),
        close("7.3.5".to_owned(), &with_reason(&[b'*'; 123]), 1000),
        close("7.3.6".to_owned(), &with_reason(&[b'*'; 124]), 1002),
        close("7.5.1".to_owned(), &with_reason(&[KOSME, b"\xed\xa0\x80edited"].concat()), 1007),
    ];
    let valid = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999];
    cases.extend((1..).zip(valid).map(|(number, code)| close(format!("7.7.{number}"), &u16::to_be_bytes(code), code)));
    let invalid = [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999];
    let refused = |group: &'static str| {
        move |(number, code): (u32, u16)| close(format!("{group}.{number}"), &code.to_be_bytes(), 1002)
    };
    cases.extend((1..).zip(invalid).map(refused("7.9")));
    cases.extend((1..).zip([5000, 65_535]).map(refused("7.13")));
    check(cases).await;
}

#[tokio::test(start_paused = true)]
async fn group_9_sizes() {
    for (groups, first, byte) in
        [(["9.1", "9.3", "9.5", "9.7"], TEXT, b'*'), (["9.2", "9.4", "9.6", "9.8"], BINARY, 0xfe)]
    {
        let of = |size: usize| vec![byte; size];
        let [whole, fragmented, chopped, many] = groups;
        for (number, size) in (1..).zip([64 << 10, 256 << 10, 1 << 20, 4 << 20, 8 << 20, BOUND]) {
            check(vec![echoed(format!("{whole}.{number}"), Chops::AtOnce, first, &of(size))]).await;
        }
        for (number, size) in (1..=9).map(|number| (number, 16_usize << (2 * number))) {
            let message = of(4 << 20);
            let frames = fragments(first, message.chunks(size));
            check(vec![case(format!("{fragmented}.{number}"), Chops::AtOnce, &frames, &[(first, &message)], 1000)])
                .await;
        }
        for (number, size) in (1..).zip([64, 128, 256, 512, 1_024, 2_048]) {
            check(vec![echoed(format!("{chopped}.{number}"), Chops::Of(size), first, &of(1 << 20))]).await;
        }
        for (number, size) in (1..).zip([0, 16, 64, 256, 1_024, 4_096]) {
            let message = of(size);
            let messages: Vec<(u8, &[u8])> = vec![(first, &message); 1_000];
            check(vec![case(format!("{many}.{number}"), Chops::ByFrame, &messages, &messages, 1000)]).await;
        }
        // One byte more than the bound is not taken, in one frame or two.
        let (half, rest) = (of(BOUND / 2), of(BOUND / 2 + 1));
        check(vec![
            case("over the bound", Chops::AtOnce, &[(first, &of(BOUND + 1))], &[], 1009),
            case("over the bound", Chops::AtOnce, &[(first & !FIN, &half), (CONTINUATION, &rest)], &[], 1009),
        ])
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn group_10_automatic_fragmentation() {
    let message = vec![b'*'; 65_536];
    let frames = fragments(TEXT, message.chunks(1_300));
    check(vec![case("10.1.1", Chops::AtOnce, &frames, &[(TEXT, &message)], 1000)]).await;
}
