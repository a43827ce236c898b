// A certified OpenID Provider as a token server: provider.mjs HOST PORT TLS_FOLDER DATA_FOLDER
//
// PORT is plain, PORT+1 is TLS. It is of the strict kind: each client authenticates in one way (oidc-provider itself would take
// Basic and Post for each other, which many servers do not), and a token is for one resource, urn:billing, which must be asked for.
// The clients, all with the scope billing:read:
//   basic, post     by their secret app-secret, as the name says
//   signer          by private_key_jwt with the key of the test certificate `client` (ES256)
//   signer-rsa      the same with the RSA key that is written to DATA_FOLDER/rsa.pem (RS256)
import { createPublicKey, generateKeyPairSync } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { createServer as createTlsServer } from "node:https";
import Provider, { errors } from "oidc-provider";

const [host, port, tls, data] = process.argv.slice(2);
const rsa = () => generateKeyPairSync("rsa", { modulusLength: 2048 });
const jwk = (key, more) => ({ ...key.export({ format: "jwk" }), ...more });
const client = (id, method, more) => ({
  client_id: id, token_endpoint_auth_method: method, scope: "billing:read",
  grant_types: ["client_credentials"], redirect_uris: [], response_types: [], ...more,
});
const signer = rsa();
writeFileSync(`${data}/rsa.pem`, signer.privateKey.export({ type: "pkcs8", format: "pem" }));
const certificate = createPublicKey(readFileSync(`${tls}/client.pem`));

const provider = new Provider(`http://127.0.0.1:${port}`, {
  jwks: { keys: [jwk(rsa().privateKey, { kid: "own", alg: "RS256", use: "sig" })] },
  clients: [
    client("basic", "client_secret_basic", { client_secret: "app-secret" }),
    client("post", "client_secret_post", { client_secret: "app-secret" }),
    client("signer", "private_key_jwt", {
      token_endpoint_auth_signing_alg: "ES256", jwks: { keys: [jwk(certificate, { kid: "ec" })] },
    }),
    client("signer-rsa", "private_key_jwt", {
      token_endpoint_auth_signing_alg: "RS256", jwks: { keys: [jwk(signer.publicKey, { kid: "rsa" })] },
    }),
  ],
  clientAuthMethods: ["client_secret_basic", "client_secret_post", "private_key_jwt"],
  scopes: ["billing:read"],
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => { throw new errors.InvalidTarget("a resource is needed"); },
      getResourceServerInfo: (_context, resource) => {
        if (resource !== "urn:billing") throw new errors.InvalidTarget();
        return { scope: "billing:read", audience: resource, accessTokenFormat: "jwt", accessTokenTTL: 300 };
      },
    },
  },
});
provider.use(async (context, next) => {
  const basic = /^Basic (.*)$/.exec(context.get("authorization"))?.[1] ?? "";
  if (!Buffer.from(basic, "base64").toString().startsWith("post:")) return next();
  Object.assign(context, { status: 401, body: { error: "invalid_client" } });
});
const handler = provider.callback();
createServer(handler).listen(Number(port), host);
const certificates = { cert: readFileSync(`${tls}/server.pem`), key: readFileSync(`${tls}/server.key`) };
createTlsServer(certificates, handler).listen(Number(port) + 1, host);
