import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * Runs many cases of grpc-java's interop client in one JVM: starting one costs more than a case.
 *
 * <p>Arguments: the file for the outcomes, the cases with commas between, then the client's own
 * flags for all of them. The file gets a JSON object: what failed of each case, null if nothing did.
 */
public final class Cases {
  private static final String CLIENT = "io.grpc.testing.integration.TestServiceClient";

  public static void main(String[] arguments) throws Exception {
    String[] flags = Arrays.copyOfRange(arguments, 2, arguments.length + 1);
    Map<String, String> outcomes = new LinkedHashMap<>();
    for (String name : arguments[1].split(",")) {
      flags[flags.length - 1] = "--test_case=" + name;
      outcomes.put(name, failure(flags));
    }
    Gson gson = new GsonBuilder().serializeNulls().create();
    Files.write(Path.of(arguments[0]), gson.toJson(outcomes).getBytes(StandardCharsets.UTF_8));
    // A case that failed may have left threads behind.
    System.exit(0);
  }

  private static String failure(String[] flags) throws Exception {
    Class<?> type = Class.forName(CLIENT);
    Object client = type.getConstructor().newInstance();
    call(client, "parseArgs", new Class<?>[] {String[].class}, (Object) flags);
    call(client, "setUp", new Class<?>[] {});
    try {
      call(client, "run", new Class<?>[] {});
      return null;
    } catch (InvocationTargetException failed) {
      StringWriter text = new StringWriter();
      failed.getCause().printStackTrace(new PrintWriter(text, true));
      return text.toString();
    } finally {
      call(client, "tearDown", new Class<?>[] {});
    }
  }

  /** The client's steps are its own; its main method would end the JVM after one case. */
  private static void call(Object client, String step, Class<?>[] types, Object... arguments)
      throws Exception {
    Method method = client.getClass().getDeclaredMethod(step, types);
    method.setAccessible(true);
    method.invoke(client, arguments);
  }
}
