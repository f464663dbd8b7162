'use strict';

const shim = require('fabric-shim');
const contract = require('../contract');

const shims = new (contract(Object, shim))();

/** The contract without the contract API. */
class Chaincode {
  async Init(stub) {
    return this.Invoke(stub);
  }

  async Invoke(stub) {
    const { fcn, params } = stub.getFunctionAndParameters();
    if (!Object.getOwnPropertyNames(Object.getPrototypeOf(shims)).includes(fcn)) {
      return shim.error(`there is no function ${fcn}`);
    }
    try {
      const clientIdentity = new shim.ClientIdentity(stub);
      const result = await shims[fcn]({ stub, clientIdentity }, ...params);
      const text = typeof result === 'string' ? result : JSON.stringify(result);
      return shim.success(Buffer.from(text || ''));
    } catch (error) {
      return shim.error(error.message);
    }
  }
}

shim.start(new Chaincode());
