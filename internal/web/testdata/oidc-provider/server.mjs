// A real OpenID provider, oidc-provider, with one client and one person. It
// prints its issuer as one line of JSON, and obeys one word a line on stdin:
// "rotate" signs with a new key and publishes the old one too, "forget" publishes
// the new one alone, "deactivate" forgets the person. It answers each with "done".
import { createInterface } from 'node:readline';
import { createServer } from 'node:http';
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import Provider from 'oidc-provider';

const [client_id, client_secret, redirect_uri, idTokenClaims] = process.argv.slice(2);
let active = true;

function key() {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), alg: 'RS256', use: 'sig' };
}

// What the provider remembers, also when it starts anew with other keys.
const kept = new Map();
class Adapter {
  constructor(model) { this.model = model; }
  key(id) { return `${this.model}:${id}`; }
  async upsert(id, payload) { kept.set(this.key(id), payload); }
  async find(id) { return kept.get(this.key(id)); }
  async findByUid(uid) { return [...kept].find(([k, v]) => k.startsWith(`${this.model}:`) && v.uid === uid)?.[1]; }
  async consume(id) { kept.get(this.key(id)).consumed = Math.floor(Date.now() / 1000); }
  async destroy(id) { kept.delete(this.key(id)); }
  async revokeByGrantId(grantId) { for (const [k, v] of kept) if (v.grantId === grantId) kept.delete(k); }
}

function provider(issuer, keys) {
  const p = new Provider(issuer, {
    clients: [{
      client_id, client_secret, redirect_uris: [redirect_uri], response_types: ['code'],
      grant_types: ['authorization_code', 'refresh_token'], token_endpoint_auth_method: 'client_secret_basic',
    }],
    adapter: Adapter,
    jwks: { keys },
    cookies: { keys: ['not a secret: a test'] },
    pkce: { required: () => true },
    scopes: ['openid', 'email', 'profile', 'offline_access'],
    claims: { openid: ['sub', 'groups'], email: ['email', 'email_verified'], profile: ['name'] },
    conformIdTokenClaims: idTokenClaims !== 'full', // a conforming ID token leaves email and groups to UserInfo
    issueRefreshToken: async (ctx, client) => client.grantTypeAllowed('refresh_token'),
    rotateRefreshToken: true,
    findAccount: (ctx, id) => (active ? {
      accountId: id,
      claims: async () => ({ sub: id, email: 'ana@example.com', email_verified: true, name: 'Ana', groups: ['engineering'] }),
    } : undefined),
    ttl: { IdToken: 3600, AccessToken: 3600, RefreshToken: 86400, Session: 86400, Grant: 86400, Interaction: 3600, AuthorizationCode: 60 },
  });
  return p.callback();
}

let keys = [key()];
let handle;
const server = createServer((req, res) => handle(req, res));
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  handle = provider(issuer, keys);
  const orders = {
    rotate: () => { keys = [key(), ...keys]; handle = provider(issuer, keys); },
    forget: () => { keys = keys.slice(0, 1); handle = provider(issuer, keys); },
    deactivate: () => { active = false; },
  };
  createInterface({ input: process.stdin }).on('line', (word) => {
    orders[word]();
    console.log('done');
  }).on('close', () => process.exit(0));
  console.log(JSON.stringify({ issuer }));
});
