'use strict';

/**
 * An application on npm `fabric-network`. Each line of its input is a JSON object, the request: what
 * to do, and an `id`. Each line of its output has that `id` with the `answer` or the `error`, as the
 * SDK gave it; or `heard`, which comes as often as the listener of that `id` hears something.
 *
 * usage: node application.js PROFILE CERTIFICATE KEY TLS_CERTIFICATE TLS_KEY
 */

const fs = require('fs');
const readline = require('readline');
const { BlockDecoder } = require('fabric-common');
const { DefaultCheckpointers, DefaultEventHandlerStrategies, Gateway } = require('fabric-network');
const { common, protos } = require('fabric-protos');

const CHANNEL = 'mychannel';

const [profile, certificate, privateKey, tlsCertificate, tlsKey] = process.argv
  .slice(2)
  .map((file) => fs.readFileSync(file, 'utf8'));

const gateway = new Gateway();

const requests = {
  async submit({ strategy, ...call }) {
    const transaction = prepared(call);
    if (strategy) {
      transaction.setEventHandler(DefaultEventHandlerStrategies[strategy]);
    }
    const payload = await transaction.submit(...call.args);
    return { txid: transaction.getTransactionId(), payload: payload.toString() };
  },

  /** Submits several, each of them ordered after all of them are endorsed. */
  async submitTogether({ calls }) {
    const endorsed = barrier(calls.length);
    const outcomes = calls.map(async (call) => {
      const transaction = prepared(call);
      transaction.setEventHandler((txid, network) => {
        const handler = DefaultEventHandlerStrategies.MSPID_SCOPE_ALLFORTX(txid, network);
        const startListening = handler.startListening.bind(handler);
        // It is called between the endorsement and the ordering.
        handler.startListening = async () => {
          await endorsed();
          await startListening();
        };
        return handler;
      });
      try {
        return { payload: (await transaction.submit(...call.args)).toString() };
      } catch (error) {
        return { error: told(error) };
      }
    });
    return Promise.all(outcomes);
  },

  async evaluate(call) {
    return (await prepared(call).evaluate(...call.args)).toString();
  },

  async listenToBlocks({ id, checkpoint, ...options }) {
    await network.addBlockListener(
      async (event) => {
        const transactions = event.getTransactionEvents().map((each) => ({
          txid: each.transactionId,
          status: each.status,
          events: each.getContractEvents().map((told) => told.eventName).filter(Boolean),
        }));
        print({ id, heard: { number: event.blockNumber.toNumber(), transactions } });
      },
      await checkpointed(options, checkpoint),
    );
  },

  async listenToContract({ id, chaincode, checkpoint, ...options }) {
    await network.getContract(chaincode).addContractListener(
      async (event) => {
        const transaction = event.getTransactionEvent();
        const heard = {
          name: event.eventName,
          payload: event.payload ? event.payload.toString() : null,
          txid: transaction.transactionId,
          block: transaction.getBlockEvent().blockNumber.toNumber(),
        };
        print({ id, heard });
      },
      await checkpointed(options, checkpoint),
    );
  },

  async chainInfo() {
    const info = common.BlockchainInfo.decode(await system('qscc', 'GetChainInfo', CHANNEL));
    return { height: info.height.toNumber(), newest: hex(info.currentBlockHash) };
  },

  async blockByNumber({ number }) {
    return block(await system('qscc', 'GetBlockByNumber', CHANNEL, String(number)));
  },

  async blockByTxid({ txid }) {
    return block(await system('qscc', 'GetBlockByTxID', CHANNEL, txid));
  },

  async transactionByTxid({ txid }) {
    const found = await system('qscc', 'GetTransactionByID', CHANNEL, txid);
    const { validationCode, transactionEnvelope } = BlockDecoder.decodeTransaction(found);
    const { creator } = transactionEnvelope.payload.header.signature_header;
    const [{ payload }] = transactionEnvelope.payload.data.actions;
    return {
      code: protos.TxValidationCode[validationCode],
      mspid: creator.mspid,
      args: payload.chaincode_proposal_payload.input.chaincode_spec.input.args.map(String),
      writes: writes(payload),
    };
  },

  async channels() {
    const answer = protos.ChannelQueryResponse.decode(await system('cscc', 'GetChannels'));
    return answer.channels.map((each) => each.channel_id);
  },

  async configBlock() {
    const { data } = BlockDecoder.decode(await system('cscc', 'GetConfigBlock', CHANNEL));
    const { channel_group: group } = data.data[0].payload.data.config;
    return {
      organisations: Object.keys(group.groups.Application.groups),
      orderers: group.values.OrdererAddresses.value.addresses,
      largest: group.groups.Orderer.values.BatchSize.value.absolute_max_bytes,
      policies: Object.keys(group.groups.Application.policies).sort(),
    };
  },
};

function prepared({ chaincode, name, transient = {} }) {
  const transaction = network.getContract(chaincode).createTransaction(name);
  const entries = Object.entries(transient).map(([key, value]) => [key, Buffer.from(value)]);
  return transaction.setTransient(Object.fromEntries(entries));
}

function system(chaincode, name, ...args) {
  return network.getContract(chaincode).evaluateTransaction(name, ...args);
}

async function checkpointed(options, file) {
  return file ? { ...options, checkpointer: await DefaultCheckpointers.file(file) } : options;
}

function block(bytes) {
  const { header, data, metadata } = BlockDecoder.decode(bytes);
  return {
    number: Number(header.number),
    previous: hex(header.previous_hash),
    txids: data.data.map((each) => each.payload.header.channel_header.tx_id),
    codes: [...metadata.metadata[common.BlockMetadataIndex.TRANSACTIONS_FILTER]],
  };
}

function writes(payload) {
  const { ns_rwset: namespaces } = payload.action.proposal_response_payload.extension.results;
  return Object.fromEntries(
    namespaces.map(({ namespace, rwset }) => [namespace, rwset.writes.map(({ key }) => key)]),
  );
}

/** Gives a function whose promises are kept once it was called that many times. */
function barrier(count) {
  let open;
  const opened = new Promise((resolve) => {
    open = resolve;
  });
  let waiting = 0;
  return () => {
    waiting += 1;
    if (waiting === count) {
      open();
    }
    return opened;
  };
}

function hex(bytes) {
  return Buffer.from(bytes).toString('hex');
}

function told({ name, message, transactionCode, transactionId }) {
  return { name, message, code: transactionCode, txid: transactionId };
}

function print(line) {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

async function serve({ id, ask, ...parameters }) {
  try {
    print({ id, answer: (await requests[ask]({ id, ...parameters })) ?? null });
  } catch (error) {
    print({ id, error: told(error) });
  }
}

let network;

async function main() {
  await gateway.connect(JSON.parse(profile), {
    identity: { type: 'X.509', mspId: 'Org1MSP', credentials: { certificate, privateKey } },
    tlsInfo: { certificate: tlsCertificate, key: tlsKey },
    discovery: { enabled: false },
  });
  network = await gateway.getNetwork(CHANNEL);
  for await (const line of readline.createInterface({ input: process.stdin })) {
    serve(JSON.parse(line));
  }
  gateway.disconnect();
}

main();
