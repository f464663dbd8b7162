// Asks a server's health and reflection and prints one line of JSON for each answer.
//
//   node probe.js HOST:PORT [CA.crt CLIENT.key CLIENT.crt]
//
// It ends once the watched health has changed to NOT_SERVING.
'use strict';

const fs = require('fs');
const grpc = require('@grpc/grpc-js');
const health = require('grpc-health-check');
const loader = require('@grpc/proto-loader');

const DEADLINE_MS = 20000;
const HEALTH = 'grpc.health.v1.Health';
const REFLECTION = '@grpc/reflection/build/proto/grpc/reflection';

const [address, ...files] = process.argv.slice(2);
const credentials = files.length
  ? grpc.credentials.createSsl(...files.map((file) => fs.readFileSync(file)))
  : grpc.credentials.createInsecure();

function client(file, service) {
  const loaded = loader.loadSync(file, { keepCase: true, enums: String, oneofs: true });
  return new (grpc.makeClientConstructor(loaded[service], service))(address, credentials);
}

const deadline = () => ({ deadline: Date.now() + DEADLINE_MS });

function say(question, answer) {
  process.stdout.write(`${JSON.stringify({ question, answer })}\n`);
}

function check(stub, service) {
  return new Promise((resolve) => {
    stub.Check({ service }, deadline(), (error, response) => {
      say(`check ${service}`.trim(), error ? grpc.status[error.code] : response.status);
      resolve();
    });
  });
}

function watch(stub, service, last) {
  return new Promise((resolve, reject) => {
    const call = stub.Watch({ service }, deadline());
    call.on('data', (response) => {
      say(`watch ${service}`.trim(), response.status);
      if (response.status === last) call.cancel();
    });
    call.on('error', (error) => {
      if (error.code === grpc.status.CANCELLED) resolve();
      else reject(error);
    });
  });
}

// All questions on one stream, as reflection is made for.
function reflect(version) {
  const service = `grpc.reflection.${version}.ServerReflection`;
  const stub = client(require.resolve(`${REFLECTION}/${version}/reflection.proto`), service);
  return new Promise((resolve, reject) => {
    const call = stub.ServerReflectionInfo(deadline());
    call.on('data', (response) => {
      const kind = response.message_response;
      const answer = {
        list_services_response: () => response[kind].service.map(({ name }) => name),
        file_descriptor_response: () => response[kind].file_descriptor_proto.map((bytes) => bytes.toString('base64')),
        error_response: () => response[kind].error_code,
      }[kind]();
      const request = response.original_request;
      say(`${version} ${request.message_request}`, answer);
    });
    call.on('error', reject);
    call.on('end', () => {
      stub.close();
      resolve();
    });
    call.write({ list_services: '' });
    call.write({ file_containing_symbol: HEALTH });
    call.write({ file_by_filename: 'no/such/file.proto' });
    call.end();
  });
}

async function main() {
  const stub = client(health.protoPath, HEALTH);
  await check(stub, '');
  await check(stub, HEALTH);
  await check(stub, 'no.such.Service');
  await watch(stub, 'no.such.Service', 'SERVICE_UNKNOWN');
  await reflect('v1');
  await reflect('v1alpha');
  await watch(stub, '', 'NOT_SERVING');
  stub.close();
}

main().catch((error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exitCode = 1;
});
