import de.bwaldvogel.mongo.MongoServer;
import de.bwaldvogel.mongo.MongoVersion;
import de.bwaldvogel.mongo.backend.h2.H2Backend;
import de.bwaldvogel.mongo.bson.Document;
import de.bwaldvogel.mongo.wire.message.MongoMessage;
import java.util.List;
import org.h2.mvstore.MVStore;

/**
 * {@code MongoWireServer PORT FILE}: the MongoDB protocol on loopback, kept in FILE.
 *
 * <p>It stands in where MongoDB's own server cannot be installed. It has no sessions, no transactions, no change streams and no
 * pipeline updates, and its speed says nothing about MongoDB's.
 */
public final class MongoWireServer {
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

    /** Left alone, the file lags a second behind. What is acknowledged must outlive a kill, as MongoDB's journal makes it. */
    private static final class DurableBackend extends H2Backend {
        DurableBackend(String file) {
            super(MVStore.open(file));
            // Milliseconds for which replaced chunks stay: with a commit per message, the 45 s of the default fill a disk.
            getMvStore().setRetentionTime(1_000);
        }

        @Override
        public Document handleMessage(MongoMessage message) {
            Document answer = super.handleMessage(message);
            commit();
            return answer;
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
