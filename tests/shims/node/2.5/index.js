'use strict';

const { Contract } = require('fabric-contract-api');
const shim = require('fabric-shim');
const contract = require('../contract');

// What fabric-chaincode-node serves.
module.exports.contracts = [contract(Contract, shim)];
