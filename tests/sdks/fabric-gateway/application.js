'use strict';

/**
 * An application on npm `@hyperledger/fabric-gateway` that reads blocks. Each line of its input is a
 * JSON object, the request: what to do, and an `id`. Each line of its output has that `id` with the
 * `answer` or the `error`, as the SDK gave it; or `heard`, which comes for each block.
 *
 * usage: node application.js ADDRESS ROOTS CERTIFICATE KEY TLS_CERTIFICATE TLS_KEY
 */

const { createPrivateKey, X509Certificate, createHash } = require('crypto');
const fs = require('fs');
const readline = require('readline');
const grpc = require('@grpc/grpc-js');
const { checkpointers, connect, signers } = require('@hyperledger/fabric-gateway');
const { common, peer } = require('@hyperledger/fabric-protos');

const CHANNEL = 'mychannel';
const RETRY_MILLISECONDS = 100;

const [address, ...files] = process.argv.slice(2);
const [roots, certificate, key, tlsCertificate, tlsKey] = files.map((file) => fs.readFileSync(file));

const client = new grpc.Client(
  address,
  grpc.credentials.createSsl(roots, tlsKey, tlsCertificate),
  { 'grpc.initial_reconnect_backoff_ms': 100, 'grpc.max_reconnect_backoff_ms': 200 },
);
const gateway = connect({
  client,
  identity: { mspId: 'Org1MSP', credentials: certificate },
  signer: signers.newPrivateKeySigner(createPrivateKey(key)),
  tlsClientCertificateHash: createHash('sha256').update(new X509Certificate(tlsCertificate).raw).digest(),
});
const network = gateway.getNetwork(CHANNEL);

// By what is asked for: how the SDK gives it, and what is told of each block.
const FORMS = {
  block: [(options) => network.getBlockEvents(options), whole],
  filtered: [(options) => network.getFilteredBlockEvents(options), filtered],
  private: [(options) => network.getBlockAndPrivateDataEvents(options), withPrivateData],
};

const open = new Set();

const requests = {
  /** Reads blocks until the application ends, and once a stream has ended from where that was. */
  async follow({ id, form, startBlock, checkpoint }) {
    const [begin, told] = FORMS[form];
    const checkpointer = checkpoint ? await checkpointers.file(checkpoint) : checkpointers.inMemory();
    const options = { startBlock: startBlock === undefined ? undefined : BigInt(startBlock) };
    const first = await begin({ ...options, checkpoint: checkpointer });
    follow(id, first, () => begin({ ...options, checkpoint: checkpointer }), told, checkpointer);
  },

  /** Reads blocks from the first one until the stream ends, and gives why. */
  async readToEnd({ form }) {
    const [begin] = FORMS[form];
    const blocks = await begin({ startBlock: 0n });
    try {
      for await (const _ of blocks);
    } finally {
      blocks.close();
    }
  },
};

async function follow(id, first, again, told, checkpointer) {
  for (let blocks = first; ; blocks = await again()) {
    open.add(blocks);
    try {
      for await (const block of blocks) {
        const heard = told(block);
        print({ id, heard });
        await checkpointer.checkpointBlock(BigInt(heard.number));
      }
    } catch (error) {
      process.stderr.write(`${error}\n`);
    }
    blocks.close();
    open.delete(blocks);
    await new Promise((resolve) => {
      setTimeout(resolve, RETRY_MILLISECONDS).unref();
    });
  }
}

function whole(block) {
  const codes = block.getMetadata().getMetadataList_asU8()[common.BlockMetadataIndex.TRANSACTIONS_FILTER];
  const txids = block.getData().getDataList_asU8().map(txid);
  return {
    number: block.getHeader().getNumber(),
    transactions: txids.map((each, index) => ({ txid: each, status: status(codes[index]) })),
  };
}

function withPrivateData(event) {
  const data = event.getPrivateDataMapMap().getLength();
  return { ...whole(event.getBlock()), data };
}

function filtered(block) {
  const transactions = block.getFilteredTransactionsList();
  return {
    number: block.getNumber(),
    transactions: transactions.map((each) => ({
      txid: each.getTxid(),
      status: status(each.getTxValidationCode()),
    })),
  };
}

function txid(envelope) {
  const payload = common.Payload.deserializeBinary(
    common.Envelope.deserializeBinary(envelope).getPayload_asU8(),
  );
  const header = payload.getHeader().getChannelHeader_asU8();
  return common.ChannelHeader.deserializeBinary(header).getTxId();
}

function status(code) {
  return Object.keys(peer.TxValidationCode).find((name) => peer.TxValidationCode[name] === code);
}

function print(line) {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

async function serve({ id, ask, ...parameters }) {
  try {
    print({ id, answer: (await requests[ask]({ id, ...parameters })) ?? null });
  } catch ({ name, message }) {
    print({ id, error: { name, message } });
  }
}

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    serve(JSON.parse(line));
  }
  open.forEach((blocks) => blocks.close());
  gateway.close();
  client.close();
  process.exit();
}

main();
