package selvedge;

import java.nio.charset.StandardCharsets;
import java.security.cert.CertificateEncodingException;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HexFormat;
import java.util.List;
import org.hyperledger.fabric.contract.ClientIdentity;
import org.hyperledger.fabric.contract.Context;
import org.hyperledger.fabric.contract.ContractInterface;
import org.hyperledger.fabric.contract.ContractRuntimeException;
import org.hyperledger.fabric.contract.annotation.Contract;
import org.hyperledger.fabric.contract.annotation.Default;
import org.hyperledger.fabric.contract.annotation.Transaction;
import org.hyperledger.fabric.shim.Chaincode.Response;
import org.hyperledger.fabric.shim.ChaincodeException;
import org.hyperledger.fabric.shim.ext.sbe.StateBasedEndorsement;
import org.hyperledger.fabric.shim.ext.sbe.impl.StateBasedEndorsementFactory;
import org.hyperledger.fabric.shim.ledger.CompositeKey;
import org.hyperledger.fabric.shim.ledger.KeyModification;
import org.hyperledger.fabric.shim.ledger.KeyValue;
import org.hyperledger.fabric.shim.ledger.QueryResultsIterator;
import org.hyperledger.fabric.shim.ledger.QueryResultsIteratorWithMetadata;
import org.json.JSONArray;
import org.json.JSONObject;

/**
 * The contract that every chaincode of these tests answers: each function asks one thing of its peer
 * and tells what came, as text or as JSON.
 */
@Contract
@Default
public final class Shims implements ContractInterface {

  @Transaction(name = "Put")
  public void put(Context context, String key, String value) {
    context.getStub().putStringState(key, value);
  }

  @Transaction(name = "PutSeries")
  public void putSeries(Context context, String prefix, int count) {
    for (int number = 0; number < count; number++) {
      put(context, "%s-%03d".formatted(prefix, number), String.valueOf(number));
    }
  }

  @Transaction(name = "Get", intent = Transaction.TYPE.EVALUATE)
  public String get(Context context, String key) {
    return context.getStub().getStringState(key);
  }

  @Transaction(name = "Delete")
  public void delete(Context context, String key) {
    context.getStub().delState(key);
  }

  @Transaction(name = "PutThenGet")
  public String putThenGet(Context context, String key, String value) {
    put(context, key, value);
    return get(context, key);
  }

  @Transaction(name = "List", intent = Transaction.TYPE.EVALUATE)
  public String list(Context context, String start, String end) {
    return rows(context.getStub().getStateByRange(start, end)).toString();
  }

  @Transaction(name = "First", intent = Transaction.TYPE.EVALUATE)
  public String first(Context context, String start, String end) {
    try (QueryResultsIterator<KeyValue> rows = context.getStub().getStateByRange(start, end)) {
      return rows.iterator().next().getKey();
    } catch (Exception failure) {
      throw new ChaincodeException("the range cannot be read", failure);
    }
  }

  @Transaction(name = "ListPage", intent = Transaction.TYPE.EVALUATE)
  public String listPage(Context context, String start, String end, int size, String bookmark) {
    return page(context.getStub().getStateByRangeWithPagination(start, end, size, bookmark))
        .toString();
  }

  @Transaction(name = "PutComposite")
  public String putComposite(
      Context context, String objectType, String first, String second, String value) {
    String key = context.getStub().createCompositeKey(objectType, first, second).toString();
    context.getStub().putStringState(key, value);
    return parts(context, key).toString();
  }

  @Transaction(name = "ListComposite", intent = Transaction.TYPE.EVALUATE)
  public String listComposite(Context context, String objectType, String first) {
    return apart(context, rows(context.getStub().getStateByPartialCompositeKey(objectType, first)))
        .toString();
  }

  @Transaction(name = "ListCompositePage", intent = Transaction.TYPE.EVALUATE)
  public String listCompositePage(
      Context context, String objectType, String first, int size, String bookmark) {
    CompositeKey partial = context.getStub().createCompositeKey(objectType, first);
    JSONObject page =
        page(
            context
                .getStub()
                .getStateByPartialCompositeKeyWithPagination(partial, size, bookmark));
    return page.put("rows", apart(context, page.getJSONArray("rows"))).toString();
  }

  @Transaction(name = "History", intent = Transaction.TYPE.EVALUATE)
  public String history(Context context, String key) {
    JSONArray versions = new JSONArray();
    for (KeyModification each : read(context.getStub().getHistoryForKey(key))) {
      versions.put(
          new JSONObject()
              .put("txid", each.getTxId())
              .put("value", each.getStringValue())
              .put("deleted", each.isDeleted())
              .put("seconds", each.getTimestamp().getEpochSecond()));
    }
    return versions.toString();
  }

  @Transaction(name = "SetPolicy")
  public void setPolicy(Context context, String key, String organisation) {
    StateBasedEndorsement policy =
        StateBasedEndorsementFactory.getInstance().newStateBasedEndorsement(null);
    policy.addOrgs(StateBasedEndorsement.RoleType.RoleTypePeer, organisation);
    context.getStub().setStateValidationParameter(key, policy.policy());
  }

  @Transaction(name = "GetPolicy", intent = Transaction.TYPE.EVALUATE)
  public String getPolicy(Context context, String key) {
    byte[] policy = context.getStub().getStateValidationParameter(key);
    List<String> organisations =
        policy == null
            ? List.of()
            : StateBasedEndorsementFactory.getInstance()
                .newStateBasedEndorsement(policy)
                .listOrgs();
    return new JSONArray(organisations).toString();
  }

  @Transaction(name = "Call")
  public String call(Context context, String chaincode, String channel, String arguments) {
    List<String> words = new JSONArray(arguments).toList().stream().map(String::valueOf).toList();
    JSONObject reply = new JSONObject();
    try {
      Response response =
          context.getStub().invokeChaincodeWithStringArgs(chaincode, words, channel);
      reply
          .put("status", response.getStatusCode())
          .put("message", response.getMessage())
          .put("payload", response.getStringPayload());
    } catch (ContractRuntimeException refusal) {
      reply.put("status", 500).put("message", refusal.getMessage()).put("payload", "");
    }
    return reply.toString();
  }

  @Transaction(name = "Event")
  public void event(Context context, String name, String payload) {
    context.getStub().setEvent(name, payload.getBytes(StandardCharsets.UTF_8));
  }

  @Transaction(name = "Creator", intent = Transaction.TYPE.EVALUATE)
  public String creator(Context context) throws CertificateEncodingException {
    ClientIdentity client = context.getClientIdentity();
    Base64.Encoder lines = Base64.getMimeEncoder(64, new byte[] {'\n'});
    String certificate = lines.encodeToString(client.getX509Certificate().getEncoded());
    return new JSONObject()
        .put("mspid", client.getMSPID())
        .put(
            "certificate",
            "-----BEGIN CERTIFICATE-----\n" + certificate + "\n-----END CERTIFICATE-----\n")
        .toString();
  }

  @Transaction(name = "Identity", intent = Transaction.TYPE.EVALUATE)
  public String identity(Context context, String attribute) {
    ClientIdentity client = context.getClientIdentity();
    String value = client.getAttributeValue(attribute);
    return new JSONObject()
        .put("mspid", client.getMSPID())
        .put("id", client.getId())
        .put("attribute", value == null ? "" : value)
        .toString();
  }

  @Transaction(name = "Transient", intent = Transaction.TYPE.EVALUATE)
  public String transientValue(Context context, String key) {
    return new String(context.getStub().getTransient().get(key), StandardCharsets.UTF_8);
  }

  @Transaction(name = "Arguments", intent = Transaction.TYPE.EVALUATE)
  public String arguments(Context context, String first, String second) {
    List<String> all = new ArrayList<>(List.of(context.getStub().getFunction()));
    all.addAll(context.getStub().getParameters());
    return new JSONArray(all).toString();
  }

  @Transaction(name = "Transaction", intent = Transaction.TYPE.EVALUATE)
  public String transaction(Context context) {
    return new JSONObject()
        .put("txid", context.getStub().getTxId())
        .put("channel", context.getStub().getChannelId())
        .put("seconds", context.getStub().getTxTimestamp().getEpochSecond())
        .toString();
  }

  @Transaction(name = "Binding", intent = Transaction.TYPE.EVALUATE)
  public String binding(Context context) {
    return HexFormat.of().formatHex(context.getStub().getBinding());
  }

  @Transaction(name = "Signature", intent = Transaction.TYPE.EVALUATE)
  public String signature(Context context) {
    byte[] signature = context.getStub().getSignedProposal().getSignature().toByteArray();
    return HexFormat.of().formatHex(signature);
  }

  @Transaction(name = "PeerMspid", intent = Transaction.TYPE.EVALUATE)
  public String peerMspid(Context context) {
    return context.getStub().getMspId();
  }

  @Transaction(name = "Fail")
  public void fail(Context context, String key, String message) {
    put(context, key, "left behind");
    throw new ChaincodeException(message);
  }

  @Transaction(name = "Panic")
  public void panic(Context context, String message) {
    throw new IllegalStateException(message);
  }

  private static <T, Q extends Iterable<T> & AutoCloseable> List<T> read(Q query) {
    List<T> found = new ArrayList<>();
    try (query) {
      query.forEach(found::add);
    } catch (Exception failure) {
      throw new ChaincodeException("the query cannot be read", failure);
    }
    return found;
  }

  private static <Q extends Iterable<KeyValue> & AutoCloseable> JSONArray rows(Q query) {
    JSONArray rows = new JSONArray();
    for (KeyValue each : read(query)) {
      rows.put(new JSONObject().put("key", each.getKey()).put("value", each.getStringValue()));
    }
    return rows;
  }

  private static JSONObject page(QueryResultsIteratorWithMetadata<KeyValue> query) {
    JSONArray rows = rows(query);
    return new JSONObject()
        .put("rows", rows)
        .put("fetched", query.getMetadata().getFetchedRecordsCount())
        .put("bookmark", query.getMetadata().getBookmark());
  }

  private static JSONArray parts(Context context, String key) {
    CompositeKey composite = context.getStub().splitCompositeKey(key);
    return new JSONArray().put(composite.getObjectType()).putAll(composite.getAttributes());
  }

  private static JSONArray apart(Context context, JSONArray rows) {
    JSONArray found = new JSONArray();
    for (int position = 0; position < rows.length(); position++) {
      JSONObject row = rows.getJSONObject(position);
      found.put(
          new JSONObject()
              .put("parts", parts(context, row.getString("key")))
              .put("value", row.getString("value")));
    }
    return found;
  }
}
