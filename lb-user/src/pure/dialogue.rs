//! Ready-made dialogues of TCP checks: what HAProxy's `smtpchk`, `redis-check`, `mysql-check` and `pgsql-check` say.
//!
//! Each says farewell in the words of its protocol, so that the server ends the connection and has nothing to log.

use super::config::model::check::{Exchange, Pattern};

/// `name` introduces the balancer, and holds no line break.
pub fn smtp(name: &str) -> Vec<Exchange> {
    // The last line of a reply that promises success (RFC 5321, 4.2.1), whole: a server may hold it against a
    // client that talks before the greeting has ended.
    let success = r"(?m-u)^2[0-9]{2}(?: [^\r\n]*)?\r?\n";
    vec![
        expect(success),
        Exchange::Send(format!("HELO {name}\r\n").into_bytes()),
        expect(success),
        Exchange::Send(b"QUIT\r\n".to_vec()),
    ]
}

pub fn redis() -> Vec<Exchange> {
    vec![
        Exchange::Send(b"*1\r\n$4\r\nPING\r\n".to_vec()),
        expect(r"^\+PONG\r\n"),
        Exchange::Send(b"*1\r\n$4\r\nQUIT\r\n".to_vec()),
    ]
}

/// Logs in as a user without password, and leaves. Without a user, a server that turns an anonymous one away
/// passes, too. `user` holds no NUL.
///
/// The server blocks a host after `max_connect_errors` (100) handshakes in a row that were begun and not completed,
/// which a check that only reads the greeting does every time. So every handshake here is completed, with an answer
/// to the server's wish for another authentication plugin where it has one. A login that is refused does not count
/// for the block, and one that succeeds resets the count; seen with MariaDB 10.11 and `max_connect_errors = 3`. What
/// still counts is a plugin that cannot work at all, such as `mysql_old_password` on a server that forbids it.
pub fn mysql(user: Option<&str>) -> Vec<Exchange> {
    // OK is 0x00, a switch to another plugin 0xfe, an error 0xff. The switch comes second in the handshake, and
    // its answer makes the result the fourth packet.
    let (reply, result) = match user {
        Some(_) => (r"(?s-u)^...\x02[\x00\xfe]", r"(?s-u)^...[\x02\x04]\x00"),
        None => (r"(?s-u)^...\x02[\x00\xfe\xff]", r"(?s-u)^...[\x02\x04][\x00\xff]"),
    };
    vec![
        expect(MYSQL_GREETING),
        Exchange::Send(mysql_packet(1, &mysql_login(user.unwrap_or_default()))),
        expect(reply),
        Exchange::SendIf(pattern(r"(?s-u)^...\x02\xfe"), mysql_packet(3, NO_PASSWORD)),
        expect(result),
        Exchange::Send(mysql_packet(0, &[MYSQL_QUIT])),
    ]
}

/// Asks to log in as `user`, and goes no further than the server's answer: any way of authentication will do. The user
/// need not exist, but a server that asks for no password logs that. `user` holds no NUL.
pub fn postgresql(user: &str) -> Vec<Exchange> {
    let mut startup = Vec::from(POSTGRESQL_VERSION);
    startup.extend_from_slice(b"user\0");
    startup.extend_from_slice(user.as_bytes());
    startup.extend_from_slice(b"\0\0");
    // A length counts itself.
    let length = u32::try_from(startup.len() + 4).unwrap_or(u32::MAX);
    let mut message = Vec::from(length.to_be_bytes());
    message.append(&mut startup);
    vec![
        Exchange::Send(message),
        // AuthenticationOk and all others that open a way to log in (PostgreSQL, 55.7).
        expect(r"(?s-u)^R\x00\x00\x00.\x00\x00\x00[\x00\x02-\x0a]"),
        // It logs a reset, and a farewell before the password; the end of the stream it does not.
        Exchange::Finish,
    ]
}

/// Protocol 10, to its end: version, thread, first salt, capabilities, character set, status, reserved, second
/// salt, plugin. Of MySQL since 5.5 and every MariaDB.
const MYSQL_GREETING: &str = r"(?s-u)^..\x00\x00\x0a[^\x00]+\x00.{4}.{8}\x00.{8}.{10}.{12}\x00[^\x00]+\x00";

/// The answer of an empty password, whatever the plugin.
const NO_PASSWORD: &[u8] = &[];

/// COM_QUIT.
const MYSQL_QUIT: u8 = 1;

/// 3.0.
const POSTGRESQL_VERSION: [u8; 4] = [0, 3, 0, 0];

/// HandshakeResponse41 without password and database.
fn mysql_login(user: &str) -> Vec<u8> {
    const PROTOCOL_41: u32 = 0x200;
    const SECURE_CONNECTION: u32 = 0x8000;
    const PLUGIN_AUTH: u32 = 0x8_0000;
    const PACKET_MAX: u32 = 1 << 24;
    const UTF8: u8 = 33;
    let mut login = Vec::from((PROTOCOL_41 | SECURE_CONNECTION | PLUGIN_AUTH).to_le_bytes());
    login.extend_from_slice(&PACKET_MAX.to_le_bytes());
    login.push(UTF8);
    login.extend_from_slice(&[0; 23]);
    login.extend_from_slice(user.as_bytes());
    login.extend_from_slice(b"\0\0mysql_native_password\0");
    login
}

fn mysql_packet(sequence: u8, payload: &[u8]) -> Vec<u8> {
    let [low, middle, high, _] = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes();
    [&[low, middle, high, sequence], payload].concat()
}

fn expect(expression: &str) -> Exchange {
    Exchange::Expect(pattern(expression))
}

fn pattern(expression: &str) -> Pattern {
    Pattern::new(expression).expect("the expressions here are constants, and a test builds each")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the server says, in order, and how far the dialogue gets with it: what it says last, or where it waits.
    #[track_caller]
    fn check(dialogue: &[Exchange], answers: &[&[u8]], sent: &[&[u8]], ends: bool) {
        let (mut answers, mut heard, mut said) = (answers.iter(), Vec::new(), Vec::new());
        let mut waits = false;
        for exchange in dialogue {
            match exchange {
                Exchange::Send(bytes) => said.push(bytes.as_slice()),
                Exchange::SendIf(pattern, bytes) if pattern.is_in(&heard) => said.push(bytes),
                Exchange::Expect(pattern) => {
                    while !waits && !pattern.is_in(&heard) {
                        match answers.next() {
                            Some(answer) => heard.extend_from_slice(answer),
                            None => waits = true,
                        }
                    }
                    continue;
                }
                Exchange::SendIf(..) | Exchange::Finish => continue,
            }
            if waits {
                said.pop();
            } else {
                heard.clear();
            }
        }
        assert_eq!(said, sent);
        assert_eq!(!waits, ends, "{heard:?}");
    }

    #[test]
    fn smtp_waits_for_whole_replies_of_success() {
        let dialogue = smtp("lb1.example.com");
        let (helo, quit) = (&b"HELO lb1.example.com\r\n"[..], &b"QUIT\r\n"[..]);
        check(&dialogue, &[b"220 mail\r\n", b"250 mail\r\n"], &[helo, quit], true);
        check(&dialogue, &[b"220-one\r\n22", b"0 two\r", b"\n", b"250\r\n"], &[helo, quit], true);
        check(&dialogue, &[b"220-one\r\n", b"220 two"], &[], false);
        check(&dialogue, &[b"554 no service\r\n"], &[], false);
        check(&dialogue, &[b"220 mail\r\n", b"550 who?\r\n"], &[helo], false);
    }

    #[test]
    fn redis_says_pong() {
        let (ping, quit) = (&b"*1\r\n$4\r\nPING\r\n"[..], &b"*1\r\n$4\r\nQUIT\r\n"[..]);
        check(&redis(), &[b"+PO", b"NG\r\n"], &[ping, quit], true);
        check(&redis(), &[b"-LOADING Redis is loading the dataset\r\n"], &[ping], false);
        check(&redis(), &[b"-NOAUTH +PONG\r\n"], &[ping], false);
    }

    const QUIT: &[u8] = &[1, 0, 0, 0, 1];
    const EMPTY: &[u8] = &[0, 0, 0, 3];
    const OK: &[u8] = &[0, 0, 0, 2, 0, 0, 0];
    const BLOCKED: &[u8] = b"\x45\0\0\0\xff\x69\x04Host '10.0.0.1' is blocked";

    fn packet(sequence: u8, payload: &[&[u8]]) -> Vec<u8> {
        mysql_packet(sequence, &payload.concat())
    }

    /// As MariaDB and MySQL send it: some salts, and the name of their plugin.
    fn greeting() -> Vec<u8> {
        packet(0, &[b"\x0a8.4.3\0", &[7; 4], &[8; 8], &[0], &[9; 8], &[0; 10], &[8; 12], b"\0plugin\0"])
    }

    fn login(user: &str) -> Vec<u8> {
        let tail = [user.as_bytes(), b"\0\0mysql_native_password\0"].concat();
        packet(1, &[&[0, 0x82, 8, 0, 0, 0, 0, 1, 33], &[0; 23], &tail])
    }

    #[test]
    fn mysql_completes_every_handshake() {
        let (greeting, login) = (greeting(), login("monitor"));
        let switch = packet(2, &[b"\xfecaching_sha2_password\0", &[5; 20], b"\0"]);
        let denied = packet(2, &[b"\xff\x15\x04#28000Access denied"]);
        let denied_later = packet(4, &[b"\xff\x15\x04#28000Access denied"]);
        let dialogue = mysql(Some("monitor"));
        check(&dialogue, &[&greeting, OK], &[&login, QUIT], true);
        check(&dialogue, &[&greeting[..40], &greeting[40..], OK], &[&login, QUIT], true);
        check(&dialogue, &[&greeting, &switch, &packet(4, &[OK])], &[&login, EMPTY, QUIT], true);
        check(&dialogue, &[&greeting, &switch, &denied_later], &[&login, EMPTY], false);
        check(&dialogue, &[&greeting, &denied], &[&login], false);
        check(&dialogue, &[BLOCKED], &[], false);
    }

    #[test]
    fn mysql_without_a_user_needs_no_success() {
        let (greeting, login) = (greeting(), login(""));
        let switch = packet(2, &[b"\xfemysql_native_password\0", &[5; 20], b"\0"]);
        let denied = packet(2, &[b"\xff\x15\x04#28000Access denied"]);
        let denied_later = packet(4, &[b"\xff\x15\x04#28000Access denied"]);
        check(&mysql(None), &[&greeting, OK], &[&login, QUIT], true);
        check(&mysql(None), &[&greeting, &denied], &[&login, QUIT], true);
        check(&mysql(None), &[&greeting, &switch, &denied_later], &[&login, EMPTY, QUIT], true);
        check(&mysql(None), &[BLOCKED], &[], false);
    }

    #[test]
    fn postgresql_offers_a_way_to_log_in() {
        let startup = b"\0\0\0\x16\0\x03\0\0user\0monitor\0\0";
        assert_eq!(startup[3] as usize, startup.len());
        let dialogue = postgresql("monitor");
        let trust = b"R\0\0\0\x08\0\0\0\0S\0\0\0";
        let scram = b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0";
        check(&dialogue, &[trust], &[startup], true);
        check(&dialogue, &[b"R\0\0\0", b"\x17\0\0\0\x0aSCRAM-SHA-256\0\0"], &[startup], true);
        check(&dialogue, &[scram], &[startup], true);
        check(&dialogue, &[b"E\0\0\0\x1dSFATAL\0C57P03\0"], &[startup], false);
        assert_eq!(dialogue.last(), Some(&Exchange::Finish));
    }
}
