'use strict';

const { AssetTransfer } = require('./asset-transfer');

// What fabric-chaincode-node serves.
module.exports.contracts = [AssetTransfer];
