-- One row of everything, as schema 0004 held it. Never edited: later schemas must still be able to read it.
INSERT INTO nights VALUES (1, 'story', '2026-05-01T22:00:00.000Z', '2026-05-01T22:09:00.000Z', 'done', 'name: story', '{"name": "story"}', '0.1.0', 7, '{"cpu": "x"}', '{"steps": 10}', '{"better": true}', 540.0, 5400.0, 0.25, NULL, 4242, 'den', 'boot:1');
INSERT INTO nights VALUES (2, 'story', '2026-05-02T22:00:00.000Z', NULL, 'interrupted', 'name: story', '{"name": "story"}', '0.1.0', 7, '{"cpu": "x"}', NULL, NULL, NULL, NULL, NULL, 'stopped', 4243, 'den', NULL);
INSERT INTO artifacts VALUES ('sft-aaaaaaaaaaaaaaaa', 'sft', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', '.nomoat/artifacts/sft-aaaaaaaaaaaaaaaa', 6000000000, '2026-05-01T22:05:00.000Z', '{}');
INSERT INTO artifacts VALUES ('merge-bbbbbbbbbbbbbbbb', 'merge', 'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', '.nomoat/artifacts/merge-bbbbbbbbbbbbbbbb', 7, '2026-05-01T22:06:00.000Z', '{}');
INSERT INTO artifact_inputs VALUES ('sft-aaaaaaaaaaaaaaaa', 'base', 'file:cccc');
INSERT INTO artifact_inputs VALUES ('merge-bbbbbbbbbbbbbbbb', 'adapter', 'sft-aaaaaaaaaaaaaaaa');
INSERT INTO artifact_inputs VALUES ('merge-bbbbbbbbbbbbbbbb', 'base', 'file:cccc');
INSERT INTO stages VALUES (1, 1, 'sft', 0, 'aaaa', 'sft-aaaaaaaaaaaaaaaa', 'done', '2026-05-01T22:00:01.000Z', '2026-05-01T22:05:00.000Z', 299.0, 2990.0, 0.1, '{"said": "10 steps"}');
INSERT INTO stages VALUES (2, 1, 'merge', 1, 'bbbb', 'merge-bbbbbbbbbbbbbbbb', 'done', '2026-05-01T22:05:00.000Z', '2026-05-01T22:06:00.000Z', 60.0, 600.0, 0.02, NULL);
INSERT INTO stages VALUES (3, 2, 'sft', 0, 'aaaa', 'sft-aaaaaaaaaaaaaaaa', 'reused', '2026-05-02T22:00:01.000Z', '2026-05-02T22:00:01.000Z', 0.5, NULL, NULL, NULL);
INSERT INTO stages VALUES (4, 2, 'merge', 1, 'bbbb', NULL, 'interrupted', '2026-05-02T22:00:02.000Z', NULL, 3.0, NULL, NULL, NULL);
INSERT INTO generations VALUES (1, 1, '2026-05-01T22:08:00.000Z', 'file:cccc', 'sft-aaaaaaaaaaaaaaaa', 'merge-bbbbbbbbbbbbbbbb', NULL, '.nomoat/artifacts/x.gguf', '{"better": true}');
INSERT INTO scores VALUES (1, 1, 'merge-bbbbbbbbbbbbbbbb', 'difference', 'checks', 'pass_rate', 0.3, 0.1, 0.5, 0.95, 200);
INSERT INTO samples VALUES (1, 1, 'checks', 'p1', '[{"role": "user", "content": "hi"}]', 'a', 'b', FALSE, TRUE, '{"words": ["x"]}');
INSERT INTO keys VALUES (1, 'laptop', 'dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd', 'wxyz', '["chat"]', '2026-05-03T08:00:00.000Z', NULL);
INSERT INTO votes VALUES (1, 'dddd', '2026-05-02T07:00:00.000Z', 'ada', 'both bad', 'quantize-eeee/night-Q8_0.gguf', 'quantize-ffff/base-Q8_0.gguf', 'gen-0001', 'base', 'typed', NULL, NULL, 'abcd', '{"messages": [{"role": "user", "content": "hi"}]}', 'a', 'b', '{"temperature": 0.7}', 4.5, NULL, 'neither greets', NULL);
INSERT INTO ratings VALUES (1, '2026-05-04T07:00:00.000Z', 'ada', 'down', 'quantize-eeee/night-Q8_0.gguf', 'gen-0001', 'abcd', '{"messages": [{"role": "user", "content": "hi"}]}', 'a', NULL);
INSERT INTO own_answers VALUES (1, '2026-05-04T07:10:00.000Z', 'ada', 1, 'abcd', '{"messages": [{"role": "user", "content": "hi"}]}', 'hello', NULL);
