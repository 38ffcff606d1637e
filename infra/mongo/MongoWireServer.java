import de.bwaldvogel.mongo.MongoCollection;
import de.bwaldvogel.mongo.MongoDatabase;
import de.bwaldvogel.mongo.MongoServer;
import de.bwaldvogel.mongo.MongoVersion;
import de.bwaldvogel.mongo.backend.Index;
import de.bwaldvogel.mongo.backend.IndexKey;
import de.bwaldvogel.mongo.backend.h2.H2Backend;
import de.bwaldvogel.mongo.backend.h2.H2Database;
import de.bwaldvogel.mongo.bson.Document;
import de.bwaldvogel.mongo.wire.message.MongoMessage;
import java.util.Collection;
import java.util.List;
import org.h2.mvstore.MVStore;

/**
 * {@code MongoWireServer PORT FILE}: the MongoDB protocol on loopback, kept in FILE.
 *
 * <p>It stands in where MongoDB's own server cannot be installed. It has no sessions, no transactions, no change streams and no
 * pipeline updates, and its speed says nothing about MongoDB's.
 */
public final class MongoWireServer {
    private static final String ID = "_id";
    private static final int CACHE_MB = 64;

    /** Documents of views, whose collections are named {@code <view>_g<N>}, are acknowledged and forgotten: for a benchmark. */
    private static final boolean DISCARD = Boolean.getBoolean("omisys.discard");

    /** Current drivers refuse anything below wire version 8; the library names itself older than that. */
    private static final MongoVersion VERSION = new MongoVersion() {
        @Override
        public List<Integer> getVersionArray() {
            return List.of(4, 4, 0);
        }

        @Override
        public int getWireVersion() {
            return 9;
        }
    };

    /** What a server that had stored it would say; null for what is no write of a view's documents. */
    private static Document discarded(Document command) {
        for (String write : List.of("insert", "update")) {
            Object written = command.get(write.equals("insert") ? "documents" : "updates");
            if (command.get(write) instanceof String collection && collection.matches(".*_g[0-9]+(_.*)?")
                    && written instanceof Collection<?> rows) {
                return new Document("n", rows.size()).append("nModified", rows.size()).append("ok", 1.0);
            }
        }
        return null;
    }

    /** Left alone, the file lags a second behind. What is acknowledged must outlive a kill, as MongoDB's journal makes it. */
    private static final class DurableBackend extends H2Backend {
        DurableBackend(String file) {
            super(new MVStore.Builder().fileName(file).cacheSize(CACHE_MB).open());
            // Milliseconds for which replaced chunks stay: with a commit per message, the 45 s of the default fill a disk.
            getMvStore().setRetentionTime(1_000);
        }

        @Override
        public Document handleMessage(MongoMessage message) {
            Document said = DISCARD ? discarded(message.getDocument()) : null;
            if (said != null) {
                return said;
            }
            // What the store replaces meanwhile stays, or a long read would lose the rest of what it walks through.
            MVStore.TxCounter version = getMvStore().registerVersionUsage();
            Document answer;
            try {
                answer = super.handleMessage(message);
            } finally {
                getMvStore().deregisterVersionUsage(version);
            }
            commit();
            return answer;
        }

        @Override
        protected MongoDatabase openOrCreateDatabase(String name) {
            return new H2Database(name, getMvStore(), getCursorRegistry()) {
                @Override
                protected Index<Object> openOrCreateUniqueIndex(String collection, String index, List<IndexKey> keys, boolean sparse) {
                    Index<Object> opened = super.openOrCreateUniqueIndex(collection, index, keys, sparse);
                    return keys.size() == 1 && keys.get(0).getKey().equals(ID) ? new IdIndex(opened) : opened;
                }
            };
        }
    }

    /**
     * The index of ids, also for queries that ask for more than the id, such as a guarded update's: the library would read the
     * whole collection for each. What the rest of the query says is checked on what the index finds.
     */
    private static final class IdIndex extends Index<Object> {
        private final Index<Object> ids;

        IdIndex(Index<Object> ids) {
            super(ids.getName(), ids.getKeys(), false);
            this.ids = ids;
        }

        private static Document idOf(Document query) {
            return new Document(ID, query.get(ID));
        }

        @Override
        public boolean canHandle(Document query) {
            return query.containsKey(ID) && ids.canHandle(idOf(query));
        }

        @Override
        public Iterable<Object> getPositions(Document query) {
            return ids.getPositions(idOf(query));
        }

        @Override
        public Object getPosition(Document document) {
            return ids.getPosition(document);
        }

        @Override
        public void checkAdd(Document document, MongoCollection<Object> collection) {
            ids.checkAdd(document, collection);
        }

        @Override
        public void add(Document document, Object position, MongoCollection<Object> collection) {
            ids.add(document, position, collection);
        }

        @Override
        public Object remove(Document document) {
            return ids.remove(document);
        }

        @Override
        public void checkUpdate(Document before, Document after, MongoCollection<Object> collection) {
            ids.checkUpdate(before, after, collection);
        }

        @Override
        public void updateInPlace(Document before, Document after, Object position, MongoCollection<Object> collection) {
            ids.updateInPlace(before, after, position, collection);
        }

        @Override
        public long getCount() {
            return ids.getCount();
        }

        @Override
        public long getDataSize() {
            return ids.getDataSize();
        }

        @Override
        public boolean isUnique() {
            return ids.isUnique();
        }

        @Override
        public void drop() {
            ids.drop();
        }
    }

    public static void main(String[] arguments) throws InterruptedException {
        MongoServer server = new MongoServer(new DurableBackend(arguments[1]).version(VERSION));
        server.bind("127.0.0.1", Integer.parseInt(arguments[0]));
        Runtime.getRuntime().addShutdownHook(new Thread(server::shutdownNow));
        System.out.println("listening on 127.0.0.1:" + arguments[0]);
        Thread.currentThread().join();
    }
}
