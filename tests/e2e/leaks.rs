//! The search for key material, tokens and the installation key in whatever an operator writes.

use std::{
    collections::BTreeMap,
    io::Write as _,
    sync::{LazyLock, Mutex},
};

use k8s_openapi::{
    ByteString,
    api::{
        coordination::v1::Lease,
        core::v1::{ConfigMap, Secret},
        events::v1::Event,
    },
};
use kube::{Api, Client, Resource, ResourceExt, api::ListParams};
use serde::{Serialize, de::DeserializeOwned};
use test_controlplane::ControlPlane;
use toolzz_operator::{
    api::{ClusterToolzzConnection, ToolzzConnection, ToolzzCredential},
    runtime::PANIC,
};
use toolzz_simulator::DEFAULT_TOKEN;

use crate::support::{Lab, Operator};

/// In every key of a test: neither half may show up anywhere. Both are such that no escaping changes them.
pub const CANARY: &str = "cut7f3aCanary-two9b2eHalves";
/// In some of the keys beside it: everything that is written in another way by somebody.
const AWKWARD: &str = "q7\"d\\n/x\nü%2B+a&z";
/// The words whose keys have it: a fixed share of the tests, and of the random lives.
const AWKWARD_WORDS: [&str; 3] = ["openai", "m1", "m2"];
const KEY_SECRET: &str = "toolzz-operator-installation-key";

/// The key that a test calls by this word.
pub fn key_material(word: &str) -> String {
    let awkward = if AWKWARD_WORDS.contains(&word) { AWKWARD } else { "" };
    format!("{CANARY}{awkward}-{word}")
}

/// The other way round.
pub fn word_of(material: &str) -> &str {
    let rest = material.strip_prefix(CANARY).unwrap_or(material);
    let rest = rest.strip_prefix(AWKWARD).unwrap_or(rest);
    rest.strip_prefix('-').unwrap_or(material)
}

/// Where to look, from anywhere: a room that ends cannot use the client it had.
struct Rooms {
    client: Client,
    namespaces: Vec<String>,
}

impl Lab {
    /// Nothing of key material, token or installation key is in anything that the operators of this room have written
    /// or been told.
    pub async fn assert_no_leak(&self) {
        self.log_holds_no_leak();
        if let Some(operator) = &self.operator {
            operator.serves_no_leak();
        }
        let keys = self.rooms(self.client.clone()).hold_no_leak().await;
        search_for(&keys, "the log", &self.log());
    }

    /// The same where no test has asked for it; called when a room is left.
    pub fn search_at_the_end(&self) {
        self.log_holds_no_leak();
        if self.searched.get() || !self.had_operators() {
            return;
        }
        let (plane, log, namespaces): (&ControlPlane, _, _) = (&self.plane, self.log(), self.namespaces());
        // The runtime of the test waits for this.
        let search = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let rooms = Rooms { client: plane.client().await.unwrap(), namespaces };
                search_for(&rooms.hold_no_leak().await, "the log", &log);
            });
        };
        if let Err(leak) = std::thread::scope(|scope| scope.spawn(search).join()) {
            std::panic::resume_unwind(leak);
        }
    }

    /// Nothing is in the logs, at trace, and none of the operators has panicked.
    pub fn log_holds_no_leak(&self) {
        let log = self.log();
        assert!(!log.is_empty() || !self.had_operators(), "nothing was logged: nothing can be found");
        search("the log", &log);
        for word in [PANIC, "panicked at"] {
            if let Some(line) = log.lines().find(|line| line.contains(word)) {
                panic!("an operator panicked: {line}");
            }
        }
    }

    fn namespaces(&self) -> Vec<String> {
        let mut namespaces = vec![self.home.clone(), self.namespace.clone()];
        namespaces.dedup();
        namespaces
    }

    fn rooms(&self, client: Client) -> Rooms {
        Rooms { client, namespaces: self.namespaces() }
    }
}

impl Operator {
    /// Nothing is in what it serves.
    pub fn serves_no_leak(&self) {
        for path in ["/metrics", "/readyz", "/healthz"] {
            // Every answer is searched there.
            self.get(path);
        }
    }

    /// Nothing is in the arguments and the environment.
    pub fn told_nothing(&self) {
        let Some(told) = self.told() else { return };
        assert!(told.contains("run"), "{told:?}");
        search("the arguments and the environment", &told);
    }
}

impl Rooms {
    /// Searches every object; the forms of the installation keys, for the log.
    async fn hold_no_leak(&self) -> Forms {
        let shared: Api<ClusterToolzzConnection> = Api::all(self.client.clone());
        let mut objects = vec![("the shared connections", listed(&shared).await)];
        let mut keys = Vec::new();
        for namespace in &self.namespaces {
            objects.push(("the events", self.all::<Event>(namespace).await));
            objects.push(("the resources", self.all::<ToolzzCredential>(namespace).await));
            objects.push(("the connections", self.all::<ToolzzConnection>(namespace).await));
            objects.push(("the config maps", self.all::<ConfigMap>(namespace).await));
            objects.push(("the leases", self.all::<Lease>(namespace).await));
            let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
            for mut secret in secrets.list(&ListParams::default()).await.unwrap() {
                if secret.name_any() == KEY_SECRET {
                    keys.extend(secret.data.iter().flatten().map(|(_, value)| value.0.clone()));
                }
                // Those of the users hold what they are for; those of the operator hold targets.
                if secret.owner_references().is_empty() {
                    secret.data = None;
                    // Of `kubectl apply`, with the whole manifest in it.
                    secret.annotations_mut().remove("kubectl.kubernetes.io/last-applied-configuration");
                }
                let decoded: Vec<_> = secret.data.iter().flatten().map(|(key, value)| (key, &value.0)).collect();
                let told: Vec<_> = decoded.iter().map(|(key, value)| (key, String::from_utf8_lossy(value))).collect();
                objects.push(("the secrets", text(&told) + &text(&secret)));
            }
        }
        // Whoever has half of it has the rest soon.
        let keys = keys.iter().filter(|key| key.len() >= 16);
        let keys = Forms::of(keys.flat_map(|key| key.chunks(key.len().div_ceil(2))));
        for (place, text) in &objects {
            search(place, text);
            search_for(&keys, place, text);
        }
        keys
    }

    async fn all<K>(&self, namespace: &str) -> String
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Serialize
            + std::fmt::Debug,
        K::DynamicType: Default,
    {
        listed(&Api::<K>::namespaced(self.client.clone(), namespace)).await
    }
}

async fn listed<K: Clone + DeserializeOwned + Serialize + std::fmt::Debug>(api: &Api<K>) -> String {
    match api.list(&ListParams::default()).await {
        Ok(list) => text(&list.items),
        // The definition was taken away.
        Err(kube::Error::Api(answer)) if answer.code == 404 => String::new(),
        Err(error) => panic!("what is there cannot be searched: {error}"),
    }
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap()
}

/// Nothing that is secret in every test is in this.
pub fn search(place: &str, text: &str) {
    static ALL: LazyLock<Forms> = LazyLock::new(|| {
        Forms::of(CANARY.split('-').chain(DEFAULT_TOKEN.split('-')).chain([AWKWARD]).map(str::as_bytes))
    });
    search_for(&ALL, place, text);
}

fn search_for(forms: &Forms, place: &str, text: &str) {
    let found = forms.found(text);
    count(place, forms.forms.len(), found.is_some());
    if let Some((form, at)) = found {
        let around = String::from_utf8_lossy(&text.as_bytes()[at.saturating_sub(300)..(at + 300).min(text.len())]);
        panic!("key material, token or installation key in {place}, as {form:?}: {around}");
    }
}

/// Keeps for `make proof` where was searched, for how many forms, how often, and how often something was found.
fn count(place: &str, forms: usize, found: bool) {
    static COUNTS: Mutex<BTreeMap<String, (usize, u64, u64)>> = Mutex::new(BTreeMap::new());
    let Some(directory) = std::env::var_os("TOOLZZ_PROOF") else { return };
    let mut counts = COUNTS.lock().unwrap();
    let entry = counts.entry(place.to_owned()).or_default();
    *entry = (entry.0.max(forms), entry.1 + 1, entry.2 + u64::from(found));
    let lines: String =
        counts.iter().map(|(place, (forms, times, found))| format!("{forms}\t{times}\t{found}\t{place}\n")).collect();
    // One file for each process: each command of the proof is one.
    let path = std::path::Path::new(&directory).join(format!("leaks-{}", std::process::id()));
    std::fs::File::create(path).unwrap().write_all(lines.as_bytes()).unwrap();
}

/// The ways in which something can stand somewhere.
struct Forms {
    forms: Vec<String>,
    all: aho_corasick::AhoCorasick,
}

impl Forms {
    fn of<'a>(secrets: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut forms: Vec<String> = secrets.into_iter().flat_map(forms).collect();
        forms.sort();
        forms.dedup();
        Self { all: aho_corasick::AhoCorasick::new(&forms).unwrap(), forms }
    }

    fn found(&self, text: &str) -> Option<(&str, usize)> {
        let found = self.all.find(text)?;
        Some((&self.forms[found.pattern()], found.start()))
    }
}

/// As it is, escaped once and twice, for a URL, in base64 wherever it begins, in hexadecimal, and as a list of its bytes.
fn forms(secret: &[u8]) -> Vec<String> {
    let list = |byte: fn(&u8) -> String, between: &str| secret.iter().map(byte).collect::<Vec<_>>().join(between);
    let mut forms = Vec::new();
    // What is no text is shown with replacements, of which only those within depend on nothing else.
    let lossy = String::from_utf8_lossy(secret);
    let plain = lossy.trim_matches('\u{fffd}');
    if plain.chars().filter(|one| *one != '\u{fffd}').count() >= 6 {
        forms.push(plain.to_owned());
        let unquoted = |text: String| text[1..text.len() - 1].to_owned();
        let json = unquoted(text(&plain));
        let debug = unquoted(format!("{plain:?}"));
        let ascii =
            json.chars().map(|one| if one.is_ascii() { one.to_string() } else { format!("\\u{:04x}", one as u32) });
        let ascii: String = ascii.collect();
        for once in [json, debug, ascii] {
            forms.push(unquoted(text(&once)));
            forms.push(unquoted(format!("{once:?}")));
            forms.push(once);
        }
        for escaped in [|byte: u8| format!("%{byte:02X}"), |byte| format!("%{byte:02x}")] {
            for slash in [false, true] {
                let plainly =
                    |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || slash && byte == b'/';
                let one = |byte: &u8| if plainly(*byte) { char::from(*byte).to_string() } else { escaped(*byte) };
                forms.push(plain.as_bytes().iter().map(one).collect());
            }
        }
    }
    let ascii = secret.escape_ascii().to_string();
    forms.extend([text(&ascii)[1..].trim_end_matches('"').to_owned(), ascii]);
    let hex = list(|byte| format!("{byte:02x}"), "");
    forms.extend([hex.to_uppercase(), hex]);
    let bytes: [fn(&u8) -> String; 5] = [
        |byte| format!("{byte}"),
        |byte| format!("{byte:x}"),
        |byte| format!("{byte:02x}"),
        |byte| format!("{byte:X}"),
        |byte| format!("{byte:#x}"),
    ];
    for byte in bytes {
        forms.extend([", ", ",", " ", ":"].map(|between| list(byte, between)));
        // `{:#?}`, however deep, also as the text of a line.
        for depth in 0..6 {
            let indent = " ".repeat(4 * depth);
            forms.extend([format!(",\n{indent}"), format!(",\\n{indent}")].map(|between| list(byte, &between)));
        }
    }
    for shift in 0..3 {
        let shifted = ByteString([vec![0; shift], secret.to_vec()].concat());
        let all = serde_json::to_value(&shifted).unwrap().as_str().unwrap().trim_end_matches('=').to_owned();
        // Only what depends on the secret alone.
        let alone = &all[(shift * 4).div_ceil(3)..all.len() - 1];
        forms.extend([alone.to_owned(), alone.replace('+', "-").replace('/', "_"), alone.replace('/', "\\/")]);
    }
    forms
}

#[test]
fn every_form_of_a_text_is_found_in_what_holds_it() {
    #[derive(Debug, Serialize)]
    struct Holder<T> {
        held: T,
    }
    let all = Forms::of(CANARY.split('-').chain([AWKWARD]).map(str::as_bytes));
    for before in ["", "a", "ab", "abc"] {
        for secret in CANARY.split('-').chain([AWKWARD]) {
            let held = Holder { held: format!("{before}{secret}xyz") };
            let bytes = Holder { held: held.held.as_bytes() };
            let deep = Some([Holder { held: Some(held.held.as_bytes()) }]);
            for shown in [
                held.held.clone(),
                text(&held),
                text(&text(&held)),
                format!("{held:?}"),
                format!("{:?}", format!("{held:?}")),
                text(&format!("{held:?}")),
                text(&ByteString(held.held.clone().into_bytes())),
                text(&bytes),
                format!("{bytes:?}"),
                format!("{bytes:#?}"),
                format!("{deep:#?}"),
                text(&format!("{deep:#?}")),
                format!("{bytes:x?}"),
                format!("{bytes:X?}"),
                format!("{bytes:#x?}"),
                format!("{:?}", bytes::Bytes::from(held.held.clone())),
            ] {
                assert!(all.found(&shown).is_some(), "{shown}");
            }
        }
    }
    assert!(all.found("?key=q7%22d%5Cn%2Fx%0A%C3%BC%252B%2Ba%26z").is_some());
    assert!(all.found(&format!("{:x?}", b"nothing")).is_none());
    assert_eq!((word_of(&key_material("openai")), word_of(&key_material("new"))), ("openai", "new"));

    // What is no text.
    let key: Vec<u8> = (0..32).map(|byte: u8| byte.wrapping_mul(37) ^ 0x5a).collect();
    let all = Forms::of(key.chunks(16));
    for half in key.chunks(16) {
        let shown = [vec![1], half.to_vec()].concat();
        let hex: String = shown.iter().map(|byte| format!("{byte:02x}")).collect();
        for shown in [text(&ByteString(shown.clone())), format!("{shown:?}"), format!("{shown:02x?}"), hex] {
            assert!(all.found(&shown).is_some(), "{shown}");
        }
    }
}

/// The process of a test that panics as the operator would, watched by another.
#[test]
fn the_words_of_a_panic_are_in_no_log() {
    const INSIDE: &str = "TOOLZZ_TEST_PANICS";
    if std::env::var_os(INSIDE).is_some() {
        toolzz_operator::runtime::start_telemetry(toolzz_operator::runtime::LogFormat::Json, "trace", None).unwrap();
        panic!("{}", key_material("openai"));
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "leaks::the_words_of_a_panic_are_in_no_log", "--nocapture"])
        .env(INSIDE, "1")
        .env_remove("TOOLZZ_PROOF")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(!output.status.success() && told.contains(PANIC) && told.contains("leaks.rs"), "{told}");
    search("the words of a panic", &told);
}
