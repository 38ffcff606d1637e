//! What every view store does; both run it.

use std::sync::Arc;

use event_bus::Checkpoint;
use event_schemas::{LogIdentity, Position};
use sqlite_file::{Options, SqliteFile, Synchronous};
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::error::ViewError;
use crate::query::{Direction, Query};

const LOG: LogIdentity = LogIdentity {
    log_id: Uuid::from_u128(7),
    epoch: 1,
};

const THINGS: ViewSchema = ViewSchema {
    name: "things",
    version: 1,
    keys: &[Key::text("status"), Key::text("title"), Key::integer("price")],
    indexes: &[&["status", "title"], &["price"]],
};

/// No document has moved.
const NONE: [usize; 0] = [];

#[derive(Clone)]
struct Fixture {
    store: ViewStore,
    server: Server,
}

/// What is below the store, for what happens to it behind its back.
#[derive(Clone)]
enum Server {
    Sqlite(
        SqliteFile,
        #[expect(dead_code, reason = "kept until the end")] Arc<TempDir>,
    ),
    #[cfg(feature = "cluster")]
    Mongo(Mongo),
}

impl Fixture {
    fn sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            synchronous: Synchronous::Normal,
            readers: 1,
        };
        let file = SqliteFile::open(dir.path().join("views.db"), options).unwrap();
        Self {
            store: ViewStore::Sqlite(SqliteViewStore::open(&file).unwrap()),
            server: Server::Sqlite(file, Arc::new(dir)),
        }
    }

    async fn table(&self) -> Arc<Table> {
        Arc::new(Table::of(THINGS, &self.store.serving(THINGS, LOG).await.unwrap()))
    }

    async fn write(&self, table: &Arc<Table>, documents: Vec<DocumentWrite>) -> Vec<usize> {
        let writes = ViewWrites {
            table: Arc::clone(table),
            documents,
        };
        let moved = self.store.write(Arc::new(vec![writes]), None).await.unwrap();
        assert_eq!(moved.len(), 1);
        let mut moved = moved.into_iter().next().unwrap();
        moved.sort_unstable();
        moved
    }

    /// Somebody deletes documents: all of `table`.
    async fn lose_documents(&self, table: &Table) {
        let name = table.name().to_owned();
        match &self.server {
            Server::Sqlite(file, _) => lose(file, format!("DELETE FROM {name}")).await,
            #[cfg(feature = "cluster")]
            Server::Mongo(mongo) => mongo.empty(&name).await,
        }
    }

    /// Somebody drops what there is.
    async fn lose_everything(&self) {
        match &self.server {
            Server::Sqlite(file, _) => lose(file, "DELETE FROM generations".to_owned()).await,
            #[cfg(feature = "cluster")]
            Server::Mongo(mongo) => mongo.drop_database().await.unwrap(),
        }
    }

    async fn ids(&self, table: &Arc<Table>, query: &Query) -> Vec<String> {
        let page = self.store.find(table, query).await.unwrap();
        page.documents
            .iter()
            .map(|document| document.id.to_string())
            .collect()
    }

    /// All pages, however small.
    async fn pages(&self, table: &Arc<Table>, query: &Query) -> Vec<String> {
        let (mut query, mut ids) = (query.clone(), Vec::new());
        loop {
            let page = self.store.find(table, &query).await.unwrap();
            assert!(page.documents.len() <= query.limit);
            ids.extend(page.documents.iter().map(|document| document.id.to_string()));
            match page.next {
                Some(after) => query = query.after(Some(after)),
                None => return ids,
            }
        }
    }
}

async fn lose(file: &SqliteFile, sql: String) {
    let lost = file.write(move |conn| Ok::<_, sqlite_file::SqliteError>(conn.execute(&sql, [])?));
    assert!(lost.await.unwrap() > 0);
}

fn document(id: &str, expected: u64, body: &str, keys: Option<[KeyValue; 3]>) -> DocumentWrite {
    DocumentWrite {
        id: DocId::from(id),
        expected,
        keys: keys.map(Vec::from),
        body: body.into(),
    }
}

fn thing(id: &str, status: &str, title: &str, price: i64) -> DocumentWrite {
    document(id, 0, "{}", Some([status.into(), title.into(), price.into()]))
}

fn ids(ids: &[&str]) -> Vec<DocId> {
    ids.iter().map(|id| DocId::from(*id)).collect()
}

macro_rules! conformance {
    ($($case:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $case() {
                super::$case(super::Fixture::sqlite()).await;
            })*
        }

        #[cfg(feature = "cluster")]
        mod mongo {
            $(#[tokio::test]
            async fn $case() {
                super::on_mongo(super::$case).await;
            })*
        }
    };
}

conformance!(
    generations_are_told_apart,
    a_later_version_reads_the_old_generation_until_its_own_serves,
    one_builds_at_a_time_until_its_lease_is_over,
    a_document_is_stored_if_it_has_not_moved,
    keys_stay_unless_they_are_given,
    progress_never_goes_back,
    a_document_that_was_lost_has_moved,
    a_generation_that_was_lost_takes_no_progress,
    lists_are_filtered,
    lists_are_ordered_and_paged,
    text_is_ordered_by_its_bytes,
    what_has_no_key_is_in_no_list_ordered_by_it,
    an_unknown_key_is_refused,
    texts_are_taken_for_nothing_but_texts,
    many_documents_at_once,
    a_scan_gives_everything_with_keys,
);

#[cfg(feature = "cluster")]
async fn on_mongo<F: Future<Output = ()> + Send + 'static>(case: impl FnOnce(Fixture) -> F) {
    let Some(mongo) = crate::testing::mongo().await else {
        return;
    };
    let fixture = Fixture {
        store: ViewStore::Mongo(MongoViewStore::new(mongo.clone())),
        server: Server::Mongo(mongo.clone()),
    };
    let outcome = tokio::spawn(case(fixture)).await;
    mongo.drop_database().await.unwrap();
    outcome.unwrap();
}

async fn generations_are_told_apart(fixture: Fixture) {
    let serving = async |log| fixture.store.serving(THINGS, log).await.unwrap();
    let first = serving(LOG).await;
    assert_eq!((first.generation, first.reached.position()), (1, Position(0)));
    assert!(first.serving);
    assert_eq!(serving(LOG).await.generation, 1);
    let table = fixture.table().await;
    fixture.write(&table, vec![thing("a", "new", "A", 1)]).await;

    let restored = LogIdentity { epoch: 2, ..LOG };
    let second = serving(restored).await;
    assert_eq!((second.generation, second.reached.position()), (2, Position(0)));
    let second = Arc::new(Table::of(THINGS, &second));
    assert!(fixture.store.load(&second, ids(&["a"])).await.unwrap().is_empty());
    let other = LogIdentity {
        log_id: Uuid::from_u128(8),
        ..LOG
    };
    assert_eq!(serving(other).await.generation, 3);
    // Another view counts for itself.
    let schema = ViewSchema {
        name: "others",
        ..THINGS
    };
    assert_eq!(fixture.store.serving(schema, LOG).await.unwrap().generation, 1);
}

fn lease(holder: &str, until: i64) -> Lease {
    Lease {
        holder: holder.to_owned(),
        until: Timestamp::from_second(until).unwrap(),
    }
}

/// One version's generation serves that version's processes until there is none, and later ones' until they have their own.
async fn a_later_version_reads_the_old_generation_until_its_own_serves(fixture: Fixture) {
    let store = &fixture.store;
    let later = ViewSchema { version: 2, ..THINGS };
    let old = store.serving(THINGS, LOG).await.unwrap();
    assert_eq!(store.serving(later, LOG).await.unwrap(), old);
    assert!(Table::of(later, &old).outdated && !Table::of(THINGS, &old).outdated);

    let held = lease("one", 100);
    let new = store
        .begin(later, LOG, Stage::Building, Some(held.clone()))
        .await
        .unwrap();
    assert_eq!((new.generation, new.serving), (2, false));
    let table = Arc::new(Table::of(later, &new));
    fixture.write(&table, vec![thing("a", "new", "A", 1)]).await;
    assert_eq!(store.count(&table).await.unwrap(), 1);
    assert!(store.follow(&table, &held).await.unwrap());
    assert_eq!(
        store.serving(later, LOG).await.unwrap(),
        old,
        "nobody said to read it"
    );
    let query = Query::new(9).equals("status", "new");
    assert_eq!(fixture.ids(&table, &query).await, ["a"], "indexed at the end");

    let now = Timestamp::from_second(7).unwrap();
    assert!(store.promote(&new, now).await.unwrap());
    store.release(&new, &held, None).await.unwrap();
    assert_eq!(store.serving(later, LOG).await.unwrap().generation, 2);
    assert_eq!(store.serving(THINGS, LOG).await.unwrap().generation, 1);
    // Of one version, only the last that was promoted serves.
    let newest = store.begin(later, LOG, Stage::Following, None).await.unwrap();
    assert!(store.promote(&newest, now).await.unwrap());
    assert!(!store.promote(&new, now).await.unwrap(), "a newer one is read");
    let rows = store.generations().await.unwrap();
    let serving: Vec<u32> = rows
        .iter()
        .filter(|row| row.serving)
        .map(|row| row.generation)
        .collect();
    assert_eq!(serving, [1, 3]);

    // Dropped: gone with its documents, and its number is not given again. Not if it has come to be read meanwhile.
    assert!(!store.drop_generation(&newest).await.unwrap());
    let newest = store.serving(later, LOG).await.unwrap();
    assert_eq!(newest.promoted_at, Some(now));
    assert!(store.drop_generation(&newest).await.unwrap());
    assert!(!store.drop_generation(&newest).await.unwrap());
    assert!(!store.promote(&newest, now).await.unwrap(), "it is gone");
    let newest = Arc::new(Table::of(later, &newest));
    assert!(store.still_there(&[newest]).await.unwrap_err().is_gone());
    store.still_there(&[table]).await.unwrap();
    assert!(store.drop_generation(&new).await.unwrap());
    let next = store.begin(later, LOG, Stage::Requested, None).await.unwrap();
    assert_eq!(next.generation, 4);
    let again = store.begin(later, LOG, Stage::Requested, None).await.unwrap();
    assert_eq!(again.generation, 4, "it is begun already");
}

/// Two that build at once would each store what the other has stored already.
async fn one_builds_at_a_time_until_its_lease_is_over(fixture: Fixture) {
    let store = &fixture.store;
    store.serving(THINGS, LOG).await.unwrap();
    let row = store.begin(THINGS, LOG, Stage::Requested, None).await.unwrap();
    let build = async |holder: &str, now: i64, built: u64| {
        let now = Timestamp::from_second(now).unwrap();
        let until = now.as_second() + 10;
        let held = lease(holder, until);
        store
            .build(&row, &held, now, Position(built), Position(50))
            .await
            .unwrap()
    };
    assert!(build("one", 0, 0).await);
    assert!(!build("two", 9, 0).await, "it is leased");
    assert!(build("one", 9, 20).await);
    assert!(build("two", 19, 0).await, "the lease is over");
    assert!(!build("one", 20, 30).await, "and is another's now");
    let rows = store.generations().await.unwrap();
    let found = rows
        .iter()
        .find(|found| found.generation == row.generation)
        .unwrap();
    assert_eq!((found.stage, found.target), (Stage::Building, Position(50)));
    assert_eq!(found.reached.position(), Position(20), "progress stays");
    assert_eq!(found.lease.as_ref().unwrap().holder, "two");
    let table = Arc::new(Table::of(THINGS, &row));
    assert!(!store.follow(&table, &lease("one", 99)).await.unwrap());
    assert!(store.follow(&table, &lease("two", 99)).await.unwrap());
    assert!(
        build("two", 21, 40).await,
        "the lease stays until it is given back"
    );
    let stage = async || {
        let rows = store.generations().await.unwrap();
        let mut rows = rows.into_iter();
        let found = rows.find(|found| found.generation == row.generation).unwrap();
        (found.stage, found.lease.is_some())
    };
    let release = async |holder: &str| {
        let held = lease(holder, 99);
        store.release(&row, &held, Some(Stage::Blocked)).await.unwrap();
    };
    release("one").await;
    assert_eq!(stage().await, (Stage::Following, true), "it is another's");
    release("two").await;
    assert_eq!(stage().await, (Stage::Blocked, false));
    store.unblock(&row).await.unwrap();
    assert_eq!(stage().await, (Stage::Following, false));
}

async fn a_document_is_stored_if_it_has_not_moved(fixture: Fixture) {
    let table = fixture.table().await;
    let body = r#"{"text":"größe \u0000 \"quoted\""}"#;
    let first = vec![
        thing("a", "new", "A", 1),
        document("b", 0, body, Some(["new".into(), "B".into(), 2.into()])),
    ];
    assert_eq!(fixture.write(&table, first).await, NONE);
    let mut found = fixture
        .store
        .load(&table, ids(&["b", "nobody", "a"]))
        .await
        .unwrap();
    found.sort_by_key(|document| document.id.to_string());
    let stored = |id: &str, rev, body: &str| StoredDocument {
        id: DocId::from(id),
        rev,
        body: body.to_owned(),
    };
    assert_eq!(found, [stored("a", 1, "{}"), stored("b", 1, body)]);

    // One that is there already, one that is stale, one that is right, one that is new: two have moved, two are stored.
    let mixed = vec![
        thing("a", "new", "again", 9),
        document("b", 7, "stale", None),
        document("a", 1, "right", None),
        thing("c", "new", "C", 3),
    ];
    assert_eq!(fixture.write(&table, mixed).await, [0, 1]);
    let mut found = fixture.store.load(&table, ids(&["a", "b", "c"])).await.unwrap();
    found.sort_by_key(|document| document.id.to_string());
    assert_eq!(
        found,
        [
            stored("a", 2, "right"),
            stored("b", 1, body),
            stored("c", 1, "{}")
        ]
    );
    // Another that was folded on the same revision comes too late, although what is stored is the revision that it makes.
    assert_eq!(
        fixture.write(&table, vec![document("a", 1, "late", None)]).await,
        [0]
    );
}

async fn keys_stay_unless_they_are_given(fixture: Fixture) {
    let table = fixture.table().await;
    fixture.write(&table, vec![thing("a", "new", "A", 1)]).await;
    fixture.write(&table, vec![document("a", 1, "{}", None)]).await;
    assert_eq!(
        fixture.ids(&table, &Query::new(9).equals("status", "new")).await,
        ["a"]
    );
    let gone = [KeyValue::Absent, "A".into(), KeyValue::Absent];
    fixture
        .write(&table, vec![document("a", 2, "{}", Some(gone.clone()))])
        .await;
    assert_eq!(
        fixture.ids(&table, &Query::new(9).equals("status", "new")).await,
        [""; 0]
    );
    let scanned = fixture.store.scan(&table, String::new(), 9).await.unwrap();
    assert_eq!(scanned[0].1, gone);
}

async fn progress_never_goes_back(fixture: Fixture) {
    let table = fixture.table().await;
    let advance = async |position| {
        let checkpoint = Checkpoint::at(LOG, Position(position));
        let writes = ViewWrites {
            table: Arc::clone(&table),
            documents: Vec::new(),
        };
        let written = fixture
            .store
            .write(Arc::new(vec![writes]), Some(checkpoint.clone()))
            .await;
        assert_eq!(written.unwrap(), [NONE]);
        let tables = [Arc::clone(&table)];
        fixture.store.advance(&tables, &checkpoint).await.unwrap();
        fixture.store.reached(&table, LOG).await.unwrap().position()
    };
    assert_eq!(advance(7).await, Position(7));
    assert_eq!(advance(5).await, Position(7));
    assert_eq!(advance(9).await, Position(9));
    let again = fixture.store.serving(THINGS, LOG).await.unwrap();
    assert_eq!((again.generation, again.reached.position()), (1, Position(9)));

    // Not if a document has moved.
    let writes = ViewWrites {
        table: Arc::clone(&table),
        documents: vec![document("a", 3, "stale", None), thing("b", "new", "B", 1)],
    };
    fixture.write(&table, vec![thing("a", "new", "A", 1)]).await;
    let checkpoint = Checkpoint::at(LOG, Position(20));
    let moved = fixture
        .store
        .write(Arc::new(vec![writes]), Some(checkpoint))
        .await
        .unwrap();
    assert_eq!(moved, [vec![0]]);
    assert_eq!(
        fixture.store.reached(&table, LOG).await.unwrap().position(),
        Position(9)
    );
    assert_eq!(fixture.store.load(&table, ids(&["b"])).await.unwrap().len(), 1);
}

async fn a_document_that_was_lost_has_moved(fixture: Fixture) {
    let table = fixture.table().await;
    fixture
        .write(&table, vec![thing("a", "new", "A", 1), thing("b", "new", "B", 1)])
        .await;
    fixture.lose_documents(&table).await;
    // One with keys, one without: neither comes back by itself.
    let gone = [KeyValue::Absent, "B".into(), KeyValue::Absent];
    let lost = vec![
        document("a", 1, "{}", None),
        thing("c", "new", "C", 3),
        document("b", 1, "{}", Some(gone)),
    ];
    assert_eq!(fixture.write(&table, lost).await, [0, 2]);
    assert_eq!(fixture.ids(&table, &Query::new(9)).await, ["c"]);
}

async fn a_generation_that_was_lost_takes_no_progress(fixture: Fixture) {
    let table = fixture.table().await;
    let advance = async |position| {
        let checkpoint = Checkpoint::at(LOG, Position(position));
        let writes = ViewWrites {
            table: Arc::clone(&table),
            documents: Vec::new(),
        };
        let write = fixture
            .store
            .write(Arc::new(vec![writes]), Some(checkpoint.clone()));
        write.await?;
        fixture.store.advance(&[Arc::clone(&table)], &checkpoint).await
    };
    advance(7).await.unwrap();
    fixture.lose_everything().await;
    let refused = advance(9).await.unwrap_err();
    assert!(!refused.retryable(), "{refused}");
    assert!(refused.to_string().contains("gone"), "{refused}");
}

/// Another process has made a generation of the same number again: nothing of the lost one gets into it.
#[cfg(feature = "cluster")]
#[tokio::test]
async fn a_generation_that_was_made_again_is_another() {
    on_mongo(|fixture| async move {
        let lost = fixture.table().await;
        fixture.write(&lost, vec![thing("a", "new", "A", 1)]).await;
        let tables = [Arc::clone(&lost)];
        let checkpoint = Checkpoint::at(LOG, Position(7));
        fixture.store.advance(&tables, &checkpoint).await.unwrap();
        fixture.store.still_there(&tables).await.unwrap();
        fixture.lose_everything().await;
        let again = fixture.table().await;
        assert_eq!(again.generation, lost.generation);
        fixture.write(&lost, vec![thing("b", "new", "B", 1)]).await;
        let told = [
            fixture.store.advance(&tables, &checkpoint).await.unwrap_err(),
            fixture.store.still_there(&tables).await.unwrap_err(),
            fixture.store.reached(&lost, LOG).await.unwrap_err(),
        ];
        assert!(told.iter().all(ViewError::is_gone), "{told:?}");
        let reached = fixture.store.reached(&again, LOG).await.unwrap();
        assert_eq!(reached, Checkpoint::start(LOG));
        assert!(fixture.ids(&again, &Query::new(9)).await.is_empty());
    })
    .await;
}

async fn lists_are_filtered(fixture: Fixture) {
    let table = fixture.table().await;
    let things = vec![
        thing("a", "new", "blue mug", 3),
        thing("b", "new", "red mug", 5),
        thing("c", "old", "blue plate", 5),
        thing("d", "old", "größe 7 (rot)", i64::MAX),
        thing("e", "old", "50% off.", -4),
    ];
    fixture.write(&table, things).await;
    let all = || Query::new(100);
    let ids = async |query| fixture.ids(&table, &query).await;
    assert_eq!(ids(all()).await, ["a", "b", "c", "d", "e"]);
    assert_eq!(ids(all().equals("status", "new")).await, ["a", "b"]);
    assert_eq!(ids(all().equals("status", "new").equals("price", 5)).await, ["b"]);
    assert_eq!(ids(all().equals("status", KeyValue::Absent)).await, [""; 0]);
    assert_eq!(
        ids(all().range("price", Some(3.into()), Some(5.into()))).await,
        ["a"]
    );
    assert_eq!(
        ids(all().range("price", Some(5.into()), None)).await,
        ["b", "c", "d"]
    );
    assert_eq!(ids(all().range("price", None, Some(0.into()))).await, ["e"]);
    let titles = all().range("title", Some("blue".into()), Some("blue n".into()));
    assert_eq!(ids(titles).await, ["a"]);
    assert_eq!(ids(all().words("title", "MUG blue")).await, ["a"]);
    assert_eq!(ids(all().words("title", "ug")).await, ["a", "b"]);
    assert_eq!(ids(all().words("title", "Größe")).await, ["d"]);
    // Nothing of it is a pattern.
    assert_eq!(ids(all().words("title", "re.d")).await, ["b"]);
    assert_eq!(ids(all().words("title", "b.*e")).await, ["a", "c"]);
    assert_eq!(ids(all().words("title", "50%")).await, ["e"]);
}

async fn lists_are_ordered_and_paged(fixture: Fixture) {
    let table = fixture.table().await;
    let things = vec![
        thing("e", "new", "x", 2),
        thing("a", "new", "y", 2),
        thing("c", "new", "x", 1),
        thing("b", "old", "x", 3),
        thing("d", "new", "x", 2),
    ];
    fixture.write(&table, things).await;
    let (up, down) = (Direction::Ascending, Direction::Descending);
    let orders = [
        (Query::new(1), vec!["a", "b", "c", "d", "e"]),
        (Query::new(1).order_by("price", up), vec!["c", "a", "d", "e", "b"]),
        (
            Query::new(1).order_by("price", down),
            vec!["b", "e", "d", "a", "c"],
        ),
        (
            Query::new(1).equals("status", "new").order_by("title", up),
            vec!["c", "d", "e", "a"],
        ),
        (
            Query::new(1).equals("status", "new").order_by("title", down),
            vec!["a", "e", "d", "c"],
        ),
    ];
    for (query, expected) in orders {
        for limit in [1, 2, 4, 5, 9] {
            let query = Query {
                limit,
                ..query.clone()
            };
            assert_eq!(fixture.pages(&table, &query).await, expected, "{query:?}");
        }
    }
    // A full last page has no next one.
    let page = fixture.store.find(&table, &Query::new(5)).await.unwrap();
    assert_eq!((page.documents.len(), page.next), (5, None));
}

async fn text_is_ordered_by_its_bytes(fixture: Fixture) {
    let table = fixture.table().await;
    let titles = [
        "", "A", "Z", "a", "a ", "ab", "z", "\u{e4}", "\u{3b1}", "\u{20ac}",
    ];
    let things = titles.iter().enumerate().map(|(index, title)| {
        let id = format!("{}", titles.len() - index);
        thing(&id, "new", title, -i64::try_from(index).unwrap())
    });
    fixture.write(&table, things.collect()).await;
    let up = Query::new(3).order_by("title", Direction::Ascending);
    let expected = ["10", "9", "8", "7", "6", "5", "4", "3", "2", "1"];
    assert_eq!(fixture.pages(&table, &up).await, expected);
    let down = Query::new(3).order_by("price", Direction::Descending);
    assert_eq!(fixture.pages(&table, &down).await, expected);
    // Ids are texts as well.
    let by_id = ["1", "10", "2", "3", "4", "5", "6", "7", "8", "9"];
    assert_eq!(fixture.pages(&table, &Query::new(3)).await, by_id);
}

async fn what_has_no_key_is_in_no_list_ordered_by_it(fixture: Fixture) {
    let table = fixture.table().await;
    let hidden = document(
        "a",
        0,
        "{}",
        Some([KeyValue::Absent, KeyValue::Absent, KeyValue::Absent]),
    );
    fixture
        .write(&table, vec![hidden, thing("b", "new", "", i64::MIN)])
        .await;
    for direction in [Direction::Ascending, Direction::Descending] {
        for key in ["title", "price"] {
            let query = Query::new(9).order_by(key, direction);
            assert_eq!(fixture.ids(&table, &query).await, ["b"], "{query:?}");
        }
    }
    assert_eq!(fixture.ids(&table, &Query::new(9)).await, ["a", "b"]);
    assert_eq!(
        fixture.ids(&table, &Query::new(9).words("title", "x")).await,
        [""; 0]
    );
}

async fn an_unknown_key_is_refused(fixture: Fixture) {
    let table = fixture.table().await;
    let refused = ViewError::UnknownKey {
        view: "things",
        key: "body",
    };
    let queries = [
        Query::new(1).equals("body", "x"),
        Query::new(1).range("body", Some(1.into()), None),
        Query::new(1).words("body", "x"),
        Query::new(1).order_by("body", Direction::Ascending),
    ];
    for query in queries {
        assert_eq!(fixture.store.find(&table, &query).await, Err(refused.clone()));
    }
}

async fn texts_are_taken_for_nothing_but_texts(fixture: Fixture) {
    let table = fixture.table().await;
    let nasty = ["$gt", "{\"$gt\":\"\"}", "' OR 1=1 --", "a.b$c", "%", "_", ".*"];
    let things = nasty.iter().map(|text| thing(text, text, text, 1)).collect();
    fixture.write(&table, things).await;
    for text in nasty {
        assert_eq!(
            fixture.ids(&table, &Query::new(9).equals("status", text)).await,
            [text]
        );
        let loaded = fixture.store.load(&table, ids(&[text])).await.unwrap();
        assert_eq!(loaded[0].id, DocId::from(text));
        // A cursor comes from the client.
        let after = After {
            key: KeyValue::Text(text.to_owned()),
            id: text.to_owned(),
        };
        for key in ["title", "price"] {
            let query = Query::new(9)
                .order_by(key, Direction::Ascending)
                .after(Some(after.clone()));
            fixture.store.find(&table, &query).await.unwrap();
        }
    }
    let nowhere = After {
        key: KeyValue::Absent,
        id: String::new(),
    };
    let query = Query::new(9)
        .order_by("title", Direction::Ascending)
        .after(Some(nowhere));
    assert_eq!(fixture.ids(&table, &query).await, [""; 0]);
}

async fn many_documents_at_once(fixture: Fixture) {
    let table = fixture.table().await;
    // More bytes than one command of MongoDB takes.
    let body = "x".repeat(40_000);
    let id = |number: usize| format!("{number:04}");
    let write = |expected| {
        let documents = (0..450).map(|number| {
            let keys = ["new".into(), "".into(), 1.into()];
            document(&id(number), expected, &body, (expected == 0).then_some(keys))
        });
        documents.collect::<Vec<_>>()
    };
    assert_eq!(fixture.write(&table, write(0)).await, NONE);
    let mut again = write(1);
    again[3].expected = 9;
    again[447].expected = 9;
    assert_eq!(fixture.write(&table, again).await, [3, 447]);
    let all: Vec<DocId> = (0..450).map(|number| DocId::from(id(number).as_str())).collect();
    let found = fixture.store.load(&table, all).await.unwrap();
    assert_eq!(found.len(), 450);
    assert_eq!(found.iter().filter(|document| document.rev == 2).count(), 448);
}

async fn a_scan_gives_everything_with_keys(fixture: Fixture) {
    let table = fixture.table().await;
    let things = vec![
        thing("c", "new", "C", 3),
        thing("a", "new", "A", 1),
        thing("b", "old", "B", 2),
    ];
    fixture.write(&table, things).await;
    let page = fixture.store.scan(&table, String::new(), 2).await.unwrap();
    let (document, keys) = &page[0];
    assert_eq!(
        (document.id.as_str(), document.rev, document.body.as_str()),
        ("a", 1, "{}")
    );
    assert_eq!(*keys, ["new".into(), "A".into(), KeyValue::Integer(1)]);
    assert_eq!(page[1].0.id.as_str(), "b");
    let rest = fixture.store.scan(&table, "b".to_owned(), 2).await.unwrap();
    assert_eq!(rest.len(), 1);
    assert_eq!(rest[0].0.id.as_str(), "c");
}

/// Several processes that start at once serve the same generation.
#[cfg(feature = "cluster")]
#[tokio::test(flavor = "multi_thread")]
async fn processes_that_start_at_once_agree() {
    on_mongo(|fixture| async move {
        let starting: Vec<_> = (0..12)
            .map(|_| {
                let store = fixture.store.clone();
                tokio::spawn(async move { store.serving(THINGS, LOG).await.unwrap().generation })
            })
            .collect();
        for starting in starting {
            assert_eq!(starting.await.unwrap(), 1);
        }
    })
    .await;
}

/// Progress is kept for each partition.
#[cfg(feature = "cluster")]
#[tokio::test]
async fn partitions_advance_for_themselves() {
    use event_bus::Partitioning;
    on_mongo(|fixture| async move {
        let table = fixture.table().await;
        let tables = [Arc::clone(&table)];
        let partitions = Partitioning::Kafka { partitions: 2 }.all();
        let mut first = Checkpoint::start(LOG);
        first.advance(partitions[0], Position(5));
        let mut second = Checkpoint::start(LOG);
        second.advance(partitions[1], Position(3));
        second.advance(partitions[0], Position(4));
        fixture.store.advance(&tables, &first).await.unwrap();
        fixture.store.advance(&tables, &second).await.unwrap();
        let reached = fixture.store.reached(&table, LOG).await.unwrap();
        assert_eq!(
            reached.positions(),
            [(partitions[0], Position(5)), (partitions[1], Position(3))]
        );
    })
    .await;
}
