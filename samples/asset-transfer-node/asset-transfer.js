'use strict';

const { Contract } = require('fabric-contract-api');

// JSON with the keys in one order: every peer must come to the same bytes.
const encode = ({ id, owner, value }) => Buffer.from(JSON.stringify({ id, owner, value }));

/** Creates, reads, updates, transfers, deletes and lists assets; each change sets an event. */
class AssetTransfer extends Contract {
    async CreateAsset(ctx, id, owner, value) {
        if ((await ctx.stub.getState(id)).length > 0) {
            throw new Error(`the asset ${id} exists already`);
        }
        return this._store(ctx, { id, owner, value: this._integer(value) }, 'AssetCreated');
    }

    async ReadAsset(ctx, id) {
        return encode(await this._load(ctx, id)).toString();
    }

    async UpdateAsset(ctx, id, value) {
        const asset = await this._load(ctx, id);
        return this._store(ctx, { ...asset, value: this._integer(value) }, 'AssetUpdated');
    }

    async TransferAsset(ctx, id, owner) {
        const asset = await this._load(ctx, id);
        return this._store(ctx, { ...asset, owner }, 'AssetTransferred');
    }

    async DeleteAsset(ctx, id) {
        const asset = await this._load(ctx, id);
        await ctx.stub.deleteState(id);
        ctx.stub.setEvent('AssetDeleted', encode(asset));
        return encode(asset).toString();
    }

    /** From the first id (included) to the end (not included); empty ids are open. */
    async ListAssets(ctx, first, end) {
        const assets = [];
        for await (const { value } of ctx.stub.getStateByRange(first, end)) {
            assets.push(Buffer.from(value).toString());
        }
        return `[${assets.join(',')}]`;
    }

    async _load(ctx, id) {
        const stored = await ctx.stub.getState(id);
        if (stored.length === 0) {
            throw new Error(`there is no asset ${id}`);
        }
        return JSON.parse(stored.toString());
    }

    async _store(ctx, asset, event) {
        const content = encode(asset);
        await ctx.stub.putState(asset.id, content);
        ctx.stub.setEvent(event, content);
        return content.toString();
    }

    _integer(text) {
        const value = Number(text);
        if (!Number.isSafeInteger(value)) {
            throw new Error(`the value '${text}' is not a whole number`);
        }
        return value;
    }
}

module.exports = { AssetTransfer };
