// An OpenID Connect provider of the tests' own: discovery, keys, a page to log in at, and PKCE, all for real.
import { createHash, generateKeyPairSync, randomBytes, sign } from "node:crypto";
import { createServer } from "node:http";

const KEY_ID = "tests";

export class Issuer {
  clientId = "warren";
  clientSecret = randomBytes(16).toString("hex");
  /** What waits to be fetched, by its code. */
  codes = new Map();

  static async start() {
    const issuer = new Issuer();
    issuer.keys = generateKeyPairSync("rsa", { modulusLength: 2048 });
    issuer.server = createServer((request, answer) => void issuer.answer(request, answer).catch((error) => answer.writeHead(500).end(String(error))));
    await new Promise((ready) => issuer.server.listen(0, "127.0.0.1", ready));
    issuer.url = `http://127.0.0.1:${issuer.server.address().port}`;
    return issuer;
  }

  async stop() {
    this.server.closeAllConnections();
    await new Promise((done) => this.server.close(done));
  }

  async answer(request, answer) {
    const url = new URL(request.url, this.url);
    const json = (status, body) => answer.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(body));
    switch (url.pathname) {
      case "/.well-known/openid-configuration":
        return json(200, {
          issuer: this.url, authorization_endpoint: `${this.url}/authorize`, token_endpoint: `${this.url}/token`, jwks_uri: `${this.url}/keys`,
          response_types_supported: ["code"], subject_types_supported: ["public"], id_token_signing_alg_values_supported: ["RS256"],
          token_endpoint_auth_methods_supported: ["client_secret_basic", "client_secret_post"], code_challenge_methods_supported: ["S256"],
        });
      case "/keys":
        return json(200, { keys: [{ ...this.keys.publicKey.export({ format: "jwk" }), kid: KEY_ID, use: "sig", alg: "RS256" }] });
      case "/authorize": {
        const hidden = [...url.searchParams].map(([name, value]) => `<input type="hidden" name="${escape(name)}" value="${escape(value)}">`);
        const page = `<!doctype html><html lang="en"><title>The provider</title><link rel="icon" href="data:,"><main><h1>The provider</h1>
          <form action="/allow"><label>Who are you? <input name="who"></label>${hidden.join("")}<button>Go on</button></form></main></html>`;
        return answer.writeHead(200, { "Content-Type": "text/html" }).end(page);
      }
      case "/allow": {
        const asked = Object.fromEntries(url.searchParams);
        const back = new URL(asked.redirect_uri);
        const code = randomBytes(16).toString("hex");
        this.codes.set(code, asked);
        back.searchParams.set("state", asked.state);
        back.searchParams.set("code", code);
        return answer.writeHead(303, { Location: back.href }).end();
      }
      case "/token": {
        let body = "";
        for await (const piece of request) body += piece;
        const form = new URLSearchParams(body);
        const asked = this.codes.get(form.get("code"));
        this.codes.delete(form.get("code"));
        const proof = createHash("sha256").update(form.get("code_verifier") ?? "").digest("base64url");
        const known = this.knows(request.headers.authorization, form);
        if (!asked || !known || proof !== asked.code_challenge || form.get("redirect_uri") !== asked.redirect_uri) {
          return json(400, { error: "invalid_grant" });
        }
        return json(200, { access_token: randomBytes(16).toString("hex"), token_type: "Bearer", expires_in: 60, id_token: this.idToken(asked) });
      }
      default:
        return answer.writeHead(404).end();
    }
  }

  knows(authorization, form) {
    const basic = Buffer.from((authorization ?? "").replace(/^Basic /, ""), "base64").toString();
    return basic === `${this.clientId}:${this.clientSecret}` || (form.get("client_id") === this.clientId && form.get("client_secret") === this.clientSecret);
  }

  idToken({ who, nonce }) {
    const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
    const now = Math.floor(Date.now() / 1000);
    const claims = { iss: this.url, aud: this.clientId, sub: `id-of-${who}`, preferred_username: who, nonce, iat: now, exp: now + 60 };
    const text = `${part({ alg: "RS256", kid: KEY_ID, typ: "JWT" })}.${part(claims)}`;
    return `${text}.${sign("sha256", Buffer.from(text), this.keys.privateKey).toString("base64url")}`;
  }
}

function escape(text) {
  return text.replaceAll("&", "&amp;").replaceAll('"', "&quot;").replaceAll("<", "&lt;");
}
