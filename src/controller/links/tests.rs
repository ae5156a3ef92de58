use kube::core::ObjectMeta;
use serde_json::json;

use super::*;
use crate::{
    api::{Account, ClusterToolzzConnection},
    controller::tests as samples,
    remote::TokenSource,
};

const NAMESPACE: &str = "red";
const UNITY: &str = "0b8e2d34-0000-4000-8000-000000000002";

fn connection(config: &Config) -> Connection {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let observer = Counting::of_default(Arc::default(), Share::WHOLE);
    Connection::new(config.clone(), TokenSource::fixed("token".into()), Clock::start(), Arc::new(observer)).unwrap()
}

/// Connections, with one of the flags. Nothing answers: what is told is told by hand.
fn links() -> Arc<Links> {
    with_queue().0
}

fn with_queue() -> (Arc<Links>, watch::Queue) {
    of_share(Share::WHOLE, Arc::default())
}

fn of_share(share: Share, metrics: Arc<Metrics>) -> (Arc<Links>, watch::Queue) {
    let (shared, terms) = samples::shared(share, metrics);
    let default = connection(&terms.config);
    Links::new(shared, terms, Some(default))
}

fn object(generation: i64, adoption: &str) -> Object {
    let spec = json!({
        "url": "http://127.0.0.1:9/api/v1", "tokenSecretRef": {"name": "t", "key": "t"}, "adoption": adoption,
        "namespaces": {"names": [NAMESPACE]}, "unities": [{"id": "*"}],
    });
    let mut object = ClusterToolzzConnection::new("default", serde_json::from_value(spec).unwrap());
    object.metadata = ObjectMeta { uid: Some("u".to_owned()), generation: Some(generation), ..object.metadata };
    Object::Cluster(Arc::new(object))
}

fn admitted(links: &Links) -> Result<bool, Reason> {
    let found = links.admitted(&ConnectionKey::default_of_cluster(), NAMESPACE, UNITY);
    found.map(|link| link.may_adopt).map_err(|(reason, _)| reason)
}

#[tokio::test]
async fn the_object_that_limits_everybody_leaves_nobody_unlimited_when_it_goes() {
    let links = links();
    assert_eq!(admitted(&links), Ok(false), "the flags say so");
    links.put(object(1, "Allowed"));
    assert_eq!(admitted(&links), Err(Reason::ConnectionNotReady), "not made yet");
    links.remove(&ConnectionKey::default_of_cluster());
    assert_eq!(admitted(&links), Err(Reason::ConnectionNotFound));
}

#[tokio::test]
async fn the_right_to_take_over_ends_with_the_grant_also_while_the_link_cannot_be_made_anew() {
    let links = links();
    let key = ConnectionKey::default_of_cluster();
    links.put(object(1, "Allowed"));
    let health = Arc::new(link::Health::new(Arc::default()));
    let link = Link::new(key.clone(), connection(&links.terms.config), true, health, &links.shared);
    let give = |link: &Arc<Link>| lock(&links.state).entries.get_mut(&key).unwrap().link = Ok(Arc::clone(link));
    give(&link);
    assert_eq!(admitted(&links), Ok(true));
    links.put(object(2, "Denied"));
    assert_eq!(admitted(&links), Err(Reason::ConnectionNotReady));
}

#[tokio::test]
async fn who_is_admitted_to_an_edited_connection_is_not_led_to_the_account_before() {
    let links = links();
    let key = ConnectionKey::default_of_cluster();
    let edited = |generation, url: &str| {
        let Object::Cluster(object) = object(generation, "Denied") else { panic!() };
        let mut object = (*object).clone();
        object.spec.account.url = url.to_owned();
        Object::Cluster(Arc::new(object))
    };
    links.put(edited(1, "http://127.0.0.1:9/one"));
    let health = Arc::new(link::Health::new(Arc::default()));
    let link = Link::new(key.clone(), connection(&links.terms.config), false, health, &links.shared);
    lock(&links.state).entries.get_mut(&key).unwrap().link = Ok(link);
    links.put(edited(2, "http://127.0.0.1:9/one"));
    assert_eq!(admitted(&links), Ok(false), "nothing to make anew");
    links.put(edited(3, "http://127.0.0.1:9/two"));
    assert_eq!(admitted(&links), Err(Reason::ConnectionNotReady));
}

#[tokio::test]
async fn of_what_could_not_be_listed_nobody_says_that_it_does_not_exist() {
    let links = links();
    let ask = |namespace: &str| {
        let key = ConnectionKey { namespace: Some(namespace.to_owned()), name: "own".to_owned() };
        links.admitted(&key, namespace, UNITY).map(|_| ()).map_err(|(reason, _)| reason)
    };
    lock(&links.state).unlisted = [Some(NAMESPACE.to_owned())].into();
    assert_eq!(ask(NAMESPACE), Err(Reason::ConnectionNotReady));
    assert_eq!(ask("blue"), Err(Reason::ConnectionNotFound));
    assert_eq!(admitted(&links), Ok(false), "the rest goes on");
    lock(&links.state).unlisted = [None].into();
    assert_eq!(ask("blue"), Err(Reason::ConnectionNotReady));
}

#[tokio::test]
async fn a_tenants_listing_fills_less_of_the_memory_than_the_platforms() {
    let links = links();
    let Object::Cluster(object) = object(1, "Denied") else { panic!() };
    let limit = |namespace: Option<&str>| {
        let key = ConnectionKey { namespace: namespace.map(str::to_owned), name: "c".to_owned() };
        links.config(&key, &object.spec.account).unwrap().listing_limit
    };
    assert!(limit(Some(NAMESPACE)) < limit(None));
    assert_eq!(limit(None), links.terms.config.listing_limit);
}

#[tokio::test]
async fn the_rate_of_a_tenant_is_that_of_one_shard() {
    let (shared, mut terms) = samples::shared(Share::WHOLE, Arc::default());
    terms.config.shares = 4.try_into().unwrap();
    let links = Links::new(shared, terms, None).0;
    let Object::Cluster(object) = object(1, "Denied") else { panic!() };
    let shares = |namespace: Option<&str>| {
        let key = ConnectionKey { namespace: namespace.map(str::to_owned), name: "c".to_owned() };
        links.config(&key, &object.spec.account).unwrap().shares.get()
    };
    assert_eq!((shares(None), shares(Some(NAMESPACE))), (4, 1));
}

#[tokio::test]
async fn what_an_object_names_is_reached_without_the_proxy_of_the_flags() {
    for allow_private_addresses in [false, true] {
        let (shared, mut terms) = samples::shared(Share::WHOLE, Arc::default());
        terms.config.proxy = Some("http://proxy.example:3128".parse().unwrap());
        terms.config.base_url = "https://api.example".to_owned();
        terms.allow_private_addresses = allow_private_addresses;
        assert!(terms.config.by_proxy().is_some());
        let links = Links::new(shared, terms, None).0;
        let Object::Cluster(object) = object(1, "Denied") else { panic!() };
        let account = Account { url: "https://api.example".to_owned(), ..object.spec.account.clone() };
        for namespace in [None, Some(NAMESPACE.to_owned())] {
            let key = ConnectionKey { namespace, name: "c".to_owned() };
            assert_eq!(links.config(&key, &account).unwrap().by_proxy(), None, "{key}");
        }
    }
}

#[tokio::test]
async fn what_comes_over_a_link_that_was_replaced_is_not_counted() {
    let links = links();
    let key = ConnectionKey::default_of_cluster();
    links.put(object(1, "Allowed"));
    let health = Arc::new(link::Health::new(Arc::default()));
    let counting = Counting::new(Arc::clone(&links.shared.metrics), Share::WHOLE, &key, Arc::clone(&health));
    let link = Link::new(key.clone(), connection(&links.terms.config), true, health, &links.shared);
    lock(&links.state).entries.get_mut(&key).unwrap().link = Ok(link);
    let rows = || rows(&links.shared.metrics);
    crate::remote::Observer::listed(&counting, &listing(), 7);
    assert_eq!(rows().as_deref(), Some("7"));
    links.remove(&key);
    crate::remote::Observer::listed(&counting, &listing(), 7);
    assert_eq!(rows().as_deref(), Some("0"));
}

fn listing() -> crate::api::ListingKey {
    crate::api::ListingKey { unity_id: UNITY.to_owned(), kind: crate::api::CredentialType::Llm }
}

fn rows(metrics: &Metrics) -> Option<String> {
    let text = metrics.text();
    text.lines().find_map(|line| line.strip_prefix("toolzz_operator_listing_rows ").map(str::to_owned))
}

#[tokio::test]
async fn what_another_shard_of_the_process_has_listed_stays_when_one_is_given_up() {
    let metrics = Arc::<Metrics>::default();
    let shards: Vec<Share> = Share::all(2.try_into().unwrap()).collect();
    let links: Vec<_> = shards.iter().map(|share| of_share(*share, Arc::clone(&metrics)).0).collect();
    for (share, count) in shards.iter().zip([7, 5]) {
        let counting = Counting::of_default(Arc::clone(&metrics), *share);
        crate::remote::Observer::listed(&counting, &listing(), count);
    }
    assert_eq!(rows(&metrics).as_deref(), Some("12"));
    links[0].stop();
    assert_eq!(rows(&metrics).as_deref(), Some("5"));
}

#[tokio::test(start_paused = true)]
async fn that_a_connection_works_is_believed_for_a_while_after_it_was_shown() {
    let minute = std::time::Duration::from_secs(60);
    let health = Arc::new(link::Health::new(Arc::default()));
    let counting =
        Counting::new(Arc::default(), Share::WHOLE, &ConnectionKey::default_of_cluster(), Arc::clone(&health));
    health.set(Ok(()));
    let is_due = || health.due(10 * minute) <= tokio::time::Instant::now();
    tokio::time::advance(9 * minute).await;
    assert!(!is_due());
    crate::remote::Observer::called(&counting, crate::remote::Operation::List, "done", minute);
    tokio::time::advance(9 * minute).await;
    assert!(!is_due(), "a user's call has shown it");
    tokio::time::advance(2 * minute).await;
    assert!(is_due());
}

#[tokio::test]
async fn what_is_held_over_a_connection_moves_with_its_url() {
    let links = links();
    let key = ConnectionKey::default_of_cluster();
    let holder = samples::resource(NAMESPACE, "holder");
    let other = samples::over_another(samples::resource(NAMESPACE, "other"));
    links.shared.claims.set(&holder, &samples::ledger(&holder, "one"));
    let lead = |generation, url: &str| {
        let Object::Cluster(object) = object(generation, "Denied") else { panic!() };
        let mut object = (*object).clone();
        object.spec.account.url = url.to_owned();
        let object = Object::Cluster(Arc::new(object));
        links.put(object.clone());
        let account = object.account().clone();
        links.replace(&key, &object, Ok(Recipe { account, token: "token".into(), may_adopt: false }));
        assert_eq!(admitted(&links), Ok(false), "made");
    };
    let is_held = |port: u16| {
        let service = format!("127.0.0.1:{port}");
        links.shared.claims.holder(&other, &service, &"one".into()).is_some()
    };
    lead(1, "http://127.0.0.1:9/api/v1");
    assert!(is_held(9));
    lead(2, "http://127.0.0.1:10/api/v1");
    assert!(is_held(10) && !is_held(9));
}

#[tokio::test]
async fn who_writes_a_secret_again_and_again_has_one_turn() {
    let (links, mut queue) = with_queue();
    links.put(object(1, "Denied"));
    let secret = ObjectMeta {
        name: Some("t".to_owned()),
        namespace: Some(links.terms.operator_namespace.clone()),
        ..ObjectMeta::default()
    };
    (0..100).for_each(|_| links.secret_changed(&secret));
    let turns = |queue: &mut watch::Queue| std::iter::from_fn(|| queue.try_recv().ok()).count();
    assert_eq!(turns(&mut queue), 1);
    // Once it had its turn there is another.
    lock(&links.waiting).clear();
    links.secret_changed(&secret);
    let _told = links.follow(&[], queue);
    let had_its_turn = async {
        while !lock(&links.waiting).is_empty() {
            tokio::task::yield_now().await;
        }
    };
    let had_its_turn = tokio::time::timeout(std::time::Duration::from_secs(10), had_its_turn).await;
    assert!(had_its_turn.is_ok(), "it waits for ever");
}

#[tokio::test]
async fn a_token_that_cannot_be_read_is_tried_again_by_one() {
    let links = links();
    let key = ConnectionKey::default_of_cluster();
    let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    for _ in 0..3 {
        links.retry(&key);
    }
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), before + 1);
}
