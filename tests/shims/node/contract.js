'use strict';

/**
 * The contract that every chaincode of these tests answers: each function asks one thing of its peer
 * and tells what came. Results are text, or what is to become JSON.
 *
 * @param {class} Base what the contract is to extend
 * @param {object} shim the `fabric-shim` that runs it
 */
module.exports = (Base, { KeyEndorsementPolicy }) =>
  class Shims extends Base {
    async Put({ stub }, key, value) {
      await stub.putState(key, Buffer.from(value));
    }

    async PutSeries({ stub }, prefix, count) {
      for (let number = 0; number < Number(count); number += 1) {
        const key = `${prefix}-${String(number).padStart(3, '0')}`;
        await stub.putState(key, Buffer.from(String(number)));
      }
    }

    async Get({ stub }, key) {
      return (await stub.getState(key)).toString();
    }

    async Delete({ stub }, key) {
      await stub.deleteState(key);
    }

    async PutThenGet({ stub }, key, value) {
      await stub.putState(key, Buffer.from(value));
      return (await stub.getState(key)).toString();
    }

    async List({ stub }, start, end) {
      return rows(stub.getStateByRange(start, end));
    }

    async First({ stub }, start, end) {
      for await (const { key } of stub.getStateByRange(start, end)) {
        return key; // leaving the loop closes the query
      }
      throw new Error('the range is empty');
    }

    async ListPage({ stub }, start, end, size, bookmark) {
      return page(stub.getStateByRangeWithPagination(start, end, Number(size), bookmark));
    }

    async PutComposite({ stub }, objectType, first, second, value) {
      const key = stub.createCompositeKey(objectType, [first, second]);
      await stub.putState(key, Buffer.from(value));
      return parts(stub, key);
    }

    async ListComposite({ stub }, objectType, first) {
      return apart(stub, await rows(stub.getStateByPartialCompositeKey(objectType, [first])));
    }

    async ListCompositePage({ stub }, objectType, first, size, bookmark) {
      const found = await page(
        stub.getStateByPartialCompositeKeyWithPagination(
          objectType, [first], Number(size), bookmark,
        ),
      );
      return { ...found, rows: apart(stub, found.rows) };
    }

    async History({ stub }, key) {
      const versions = [];
      for await (const each of stub.getHistoryForKey(key)) {
        versions.push({
          txid: each.txId,
          value: each.value.toString(),
          deleted: each.isDelete,
          seconds: Number(each.timestamp.seconds),
        });
      }
      return versions;
    }

    async SetPolicy({ stub }, key, organisation) {
      const policy = new KeyEndorsementPolicy();
      policy.addOrgs('PEER', organisation);
      await stub.setStateValidationParameter(key, policy.getPolicy());
    }

    async GetPolicy({ stub }, key) {
      const policy = await stub.getStateValidationParameter(key);
      return policy ? new KeyEndorsementPolicy(policy).listOrgs() : [];
    }

    async Call({ stub }, chaincode, channel, args) {
      try {
        const reply = await stub.invokeChaincode(chaincode, JSON.parse(args), channel);
        const payload = Buffer.from(reply.payload).toString();
        return { status: reply.status, message: reply.message, payload };
      } catch (error) {
        return { status: 500, message: error.message, payload: '' };
      }
    }

    async Event({ stub }, name, payload) {
      stub.setEvent(name, Buffer.from(payload));
    }

    async Creator({ stub }) {
      const { mspid, idBytes } = stub.getCreator();
      return { mspid, certificate: Buffer.from(idBytes).toString() };
    }

    async Identity({ clientIdentity }, attribute) {
      return {
        mspid: clientIdentity.getMSPID(),
        id: clientIdentity.getID(),
        attribute: clientIdentity.getAttributeValue(attribute) || '',
      };
    }

    async Transient({ stub }, key) {
      return stub.getTransient().get(key).toString();
    }

    async Arguments({ stub }, _first, _second) {
      const { fcn, params } = stub.getFunctionAndParameters();
      return [fcn, ...params];
    }

    async Transaction({ stub }) {
      return {
        txid: stub.getTxID(),
        channel: stub.getChannelID(),
        seconds: Math.floor(stub.getDateTimestamp().getTime() / 1000),
      };
    }

    async Binding({ stub }) {
      return stub.getBinding();
    }

    async Signature({ stub }) {
      return Buffer.from(stub.getSignedProposal().signature).toString('hex');
    }

    async PeerMspid({ stub }) {
      return stub.getMspID();
    }

    async Fail({ stub }, key, message) {
      await stub.putState(key, Buffer.from('left behind'));
      throw new Error(message);
    }

    async Panic(_context, message) {
      return message.no.such.property;
    }
  };

async function rows(query) {
  const found = [];
  for await (const { key, value } of query) {
    found.push({ key, value: value.toString() });
  }
  return found;
}

async function page(query) {
  const found = await rows(query);
  const { metadata } = await query;
  // To the shim of 2.5 a page of no rows has no metadata, as both of its fields are empty.
  const { fetchedRecordsCount, bookmark } = metadata || { fetchedRecordsCount: 0, bookmark: '' };
  return { rows: found, fetched: fetchedRecordsCount, bookmark };
}

function parts(stub, key) {
  const { objectType, attributes } = stub.splitCompositeKey(key);
  return [objectType, ...attributes];
}

function apart(stub, found) {
  return found.map(({ key, value }) => ({ parts: parts(stub, key), value }));
}
