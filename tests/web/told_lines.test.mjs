// Lines as the server makes them, in the languages that the pack has: nothing of them may stay English but what is filled in.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { Names } from "../../web/page/names.mjs?v=0.1.0";
import { bracketed, told, useMessages } from "../../web/page/told.mjs?v=0.1.0";

const read = (language, file) => JSON.parse(readFileSync(new URL(`../../locales/${language}/${file}`, import.meta.url)));

function speak(language) {
  const messages = Object.assign({}, ...Object.values(read(language, "server.json")));
  useMessages(messages, new Names(read("en", "nodeDefs.json"), read(language, "nodeDefs.json"), bracketed(messages)));
}

// English, French, Chinese.
const LINES = [
  [
    "walk.mp4 (mask file walk_mask.mkv): mask_channel is alpha, but the clip has no alpha channel. Choose luminance, or save the mask with alpha.",
    "walk.mp4 (fichier de masque walk_mask.mkv) : « canal du masque (mask_channel) » est alpha, mais le clip n’a pas de canal alpha. Choisissez luminance, ou enregistrez le masque avec alpha.",
    "walk.mp4（遮罩文件 walk_mask.mkv）：遮罩通道（mask_channel）为 alpha，但该片段没有 Alpha 通道。请选择 luminance，或带 Alpha 保存遮罩。",
  ],
  [
    "walk.mp4 (frame 3): start is rough mask, but the picture has no mask. Make a rough one first, or choose margin or box.",
    "walk.mp4 (image 3) : « départ (start) » vaut rough mask, mais l’image n’a pas de masque. Faites d’abord un masque grossier, ou choisissez margin ou box.",
    "walk.mp4（第 3 帧）：start 为 rough mask，但该图片没有遮罩。请先制作一个粗略遮罩，或选择 margin 或 box。",
  ],
  [
    "subjects in 1 picture, 0 of them with several: cat (1).",
    "sujets dans 1 image, dont 0 avec plusieurs : cat (1).",
    "1 张图片中有主体，其中 0 张有多个：cat (1)。",
  ],
  [
    "1 of 2 parts of clips teaches nothing: its mask is black everywhere: walk.mkv [9–17]. Look at the files, or take it out.",
    "1 des 2 parties de clips n’apprend rien : son masque est noir partout : walk.mkv [9–17]. Regardez les fichiers, ou retirez-le du jeu.",
    "2 个片段部分中有 1 个什么也学不到：遮罩处处都是黑的：walk.mkv [9–17]。请查看这些文件，或把它移出数据集。",
  ],
  [
    "3 of 20 pictures teach nothing: their masks are black everywhere: a.png, b.png, c.png. Look at the files, or take them out.",
    "3 des 20 images n’apprennent rien : leurs masques sont noirs partout : a.png, b.png, c.png. Regardez les fichiers, ou retirez-les du jeu.",
    "20 张图片中有 3 张什么也学不到：遮罩处处都是黑的：a.png, b.png, c.png。请查看这些文件，或把它们移出数据集。",
  ],
  [
    "7 of 20 pictures lose most of their mask to the crop: a.png (keeps 12%), b.png (keeps 3%), c (1).png (keeps 40%), d.png (keeps 2%), e.png (keeps 9%) and 2 more. Set crop in Cache Dataset to around mask, or turn on bucketing.",
    "7 des 20 images perdent au recadrage presque tout leur masque : a.png (en garde 12%), b.png (en garde 3%), c (1).png (en garde 40%), d.png (en garde 2%), e.png (en garde 9%) et 2 de plus. Réglez « recadrage (crop) » de « Mettre en cache » sur around mask, ou activez « garder les proportions (bucketing) ».",
    "20 张图片中有 7 张的遮罩大部分被裁剪去掉：a.png（保留 12%），b.png（保留 3%），c (1).png（保留 40%），d.png（保留 2%），e.png（保留 9%） 以及另外 2 个。请把缓存数据集的 crop 设为 around mask，或打开 bucketing。",
  ],
  [
    "The only picture teaches nothing: the crop cuts its whole mask away: a.png. Set crop in Cache Dataset to around mask, or turn on bucketing.",
    "La seule image n’apprend rien : le recadrage coupe tout son masque : a.png. Réglez « recadrage (crop) » de « Mettre en cache » sur around mask, ou activez « garder les proportions (bucketing) ».",
    "唯一的图片什么也学不到：裁剪去掉了整个遮罩：a.png。请把缓存数据集的 crop 设为 around mask，或打开 bucketing。",
  ],
  [
    "1 of 20 pictures teaches nothing in some of its crops, which leave nothing of the mask: a.png. Set crop in Cache Dataset to around mask, or turn on bucketing.",
    "1 des 20 images n’apprend rien dans certains de ses recadrages, qui ne laissent rien du masque : a.png. Réglez « recadrage (crop) » de « Mettre en cache » sur around mask, ou activez « garder les proportions (bucketing) ».",
    "20 张图片中有 1 张在部分裁剪中什么也学不到，因为遮罩一点也没留下：a.png。请把缓存数据集的 crop 设为 around mask，或打开 bucketing。",
  ],
  [
    "3 of 20 pictures have doubtful masks (a.png, b.png, c.png): the largest weight is 0.50. If that is meant as white, turn on binarize in Transform Masks with a threshold of 0.25.",
    "3 des 20 images : masques douteux (a.png, b.png, c.png) : le plus grand poids est 0.50. Si cela doit être du blanc, activez « binariser (binarize) » dans « Transformer les masques » avec un seuil de 0.25.",
    "20 张图片中有 3 张的遮罩有疑问（a.png, b.png, c.png）：最大权重为 0.50。如果它本意是白色，请在变换遮罩中打开 binarize，threshold 设为 0.25。",
  ],
  [
    "The only picture has a doubtful mask (a (1).png): the values are a few small numbers, as of classes, and weigh next to nothing. To learn all of them, turn on binarize in Transform Masks with a threshold of 0.0039; to learn one, save it as a mask of its own.",
    "La seule image : masque douteux (a (1).png) : les valeurs sont quelques petits nombres, comme ceux de classes, et ne pèsent presque rien. Pour les apprendre toutes, activez « binariser (binarize) » dans « Transformer les masques » avec un seuil de 0.0039 ; pour en apprendre une, enregistrez-la comme un masque à part.",
    "唯一的图片的遮罩有疑问（a (1).png）：数值是几个很小的数，像类别编号，权重几乎为零。要全部学习，请在变换遮罩中打开 binarize，threshold 设为 0.0039；要只学习其中一类，请把它单独存为遮罩。",
  ],
  [
    "3 of 20 pictures: the mask is in the file's alpha, and was taken from there. Found in: a.png, b.png, c.png.",
    "3 des 20 images : le masque est dans l’alpha du fichier, et y a été pris. Trouvé dans : a.png, b.png, c.png.",
    "20 张图片中有 3 张：遮罩在文件的 Alpha 中，已从那里读取。见于：a.png, b.png, c.png。",
  ],
  [
    "2 of 20 pictures teach nothing under mask_type hard, weight_threshold 0.5, which leave no latent cell any weight: a.png, b.png. Change these in Masked Loss, or grow the masks.",
    "2 des 20 images n’apprennent rien avec type de masque (mask_type) hard, seuil des poids (weight_threshold) 0.5, qui ne laissent de poids à aucune cellule latente : a.png, b.png. Changez ces réglages dans « Perte masquée », ou agrandissez les masques.",
    "20 张图片中有 2 张什么也学不到，因为 遮罩类型（mask_type） hard, 权重阈值（weight_threshold） 0.5 使所有 Latent 单元格都没有权重：a.png, b.png。请更改遮罩损失中的这些设置，或扩展遮罩。",
  ],
  [
    "captions: 12 read from .txt, 3 read from metadata.jsonl.",
    "légendes (captions) : 12 de .txt, 3 de metadata.jsonl.",
    "标注：12 条来自 .txt, 3 条来自 metadata.jsonl。",
  ],
  [
    "6 masks written to C:/sets/masks.\n2 files held the same already and were left alone.\nLoad Dataset: folder C:/sets, mask_source folder, mask_folder C:/sets/masks, mask_channel luminance.",
    "6 masques écrits dans C:/sets/masks.\n2 fichiers contenaient déjà la même chose et ont été laissés tels quels.\n« Charger un jeu de données » : dossier (folder) C:/sets, source des masques (mask_source) folder, dossier des masques (mask_folder) C:/sets/masks, canal du masque (mask_channel) luminance.",
    "已把 6 个遮罩写到 C:/sets/masks。\n2 个文件已有相同的内容，保持不变。\n加载数据集：文件夹（folder） C:/sets，遮罩来源（mask_source） folder，遮罩文件夹（mask_folder） C:/sets/masks，遮罩通道（mask_channel） luminance。",
  ],
  [
    "6 masks written beside the pictures, as <name>.mask.png.",
    "6 masques écrits à côté des images, sous le nom <name>.mask.png.",
    "已把 6 个遮罩写到图片旁边，命名为 <name>.mask.png。",
  ],
  [
    "b.png: could not be written (No space left on device). 3 MiB are free there. What was written before is untouched. Make room or choose another folder, then queue the same workflow again. Of 6 pictures, 2 were saved before.",
    "b.png : écriture impossible (No space left on device). Il y reste 3 Mio. Ce qui a été écrit avant est intact. Libérez de la place ou choisissez un autre dossier, puis remettez le même workflow en file. Sur 6 images, 2 ont été enregistrés avant.",
    "b.png：无法写入（No space left on device）。那里剩余 3 MiB。之前写入的内容没有改动。请腾出空间或换一个文件夹，然后再次运行同一工作流。 6 张图片中此前已保存 2 个。",
  ],
  [
    "Color Masks: masks: 3 made (replace), 1 kept, 2 black because nothing was found, left out because nothing was found: 1 picture.",
    "Masques par couleur : masques : 3 faits (replace), 1 gardés, 2 en noir, car rien n’a été trouvé, de côté, car rien n’a été trouvé : 1 image.",
    "颜色遮罩：遮罩：制作 3 个（replace），保留 1 个，2 个因什么也没找到而设为黑色，因什么也没找到而排除：1 张图片。",
  ],
  [
    "Every option as you set it. Sets the defaults.",
    "Chaque option telle que vous la réglez. Règle les valeurs par défaut.",
    "每个选项都按您的设定。设定为默认值。",
  ],
  [
    "Trained 100 steps. loss 0.1234, coverage 0.25.",
    "Entraîné sur 100 étapes. loss 0.1234, coverage 0.25.",
    "已训练 100 步。 loss 0.1234, coverage 0.25.",
  ],
  [
    "Trained 10 steps, resumed from step 5. loss 0.12. 3 samples were shown without any weight and taught nothing.",
    "Entraîné sur 10 étapes, repris à l’étape 5. loss 0.12. 3 échantillons ont été montrés sans aucun poids et n’ont rien appris.",
    "已训练 10 步，从第 5 步继续。 loss 0.12. 有 3 个样本在没有任何权重的情况下展示，什么也没学到。",
  ],
  [
    "Loaded the finished run. loss 0.12.",
    "Entraînement terminé chargé. loss 0.12.",
    "已加载完成的训练。 loss 0.12.",
  ],
  [
    "Memory for NVIDIA H200: 12.3 GB at the peak, of which weights 8.1 GB, adapters 0.1 GB, gradients 0.1 GB, optimizer 0.2 GB, captions 12 MB, kept for backward 2.1 GB, work 1.7 GB. That is 95% of the card's 13.0 GB. Other programs on the card may leave too little. One of these is enough: checkpointing per block saves 1.9 GB; rank 8 saves 0.2 GB for 3% more work.",
    "Mémoire pour NVIDIA H200 : 12.3 GB au maximum, dont poids 8.1 GB, adaptateurs 0.1 GB, gradients 0.1 GB, optimiseur 0.2 GB, légendes 12 MB, gardé pour le retour 2.1 GB, calcul 1.7 GB. C’est 95% des 13.0 GB de la carte. D’autres programmes sur la carte pourraient ne pas en laisser assez. Un seul de ceux-ci suffit : checkpointing per block épargne 1.9 GB ; rank 8 épargne 0.2 GB pour 3% de travail en plus.",
    "NVIDIA H200 上的占用：峰值 12.3 GB，其中权重 8.1 GB，适配器 0.1 GB，梯度 0.1 GB，优化器 0.2 GB，标注 12 MB，为反向传播保留 2.1 GB，计算 1.7 GB。这是显卡 13.0 GB 的 95%。显卡上的其他程序可能留不出足够的显存。以下任一项即可：checkpointing 设为 per block：省下 1.9 GB；rank 8：省下 0.2 GB，计算量增加 3%。",
  ],
  [
    "batch_size, rank: this training needs more than the card has. Memory for a card of 8.0 GB: 12.3 GB at the peak, of which weights 8.1 GB, adapters 0.1 GB, gradients 0.1 GB, optimizer 0.2 GB, captions 12 MB, kept for backward 2.1 GB, work 1.7 GB. That is more than the card's 8.0 GB. Together these may be enough: batch_size 1 with gradient_accumulation 4 saves 1.9 GB; rank 8 saves 0.2 GB. To train all the same, set over_memory to go on: ComfyUI then keeps a part of the weights in main memory, which is slow, or the card runs out.",
    "taille du lot (batch_size), rang (rank) : cet entraînement demande plus que n’a la carte. Mémoire pour une carte de 8.0 GB : 12.3 GB au maximum, dont poids 8.1 GB, adaptateurs 0.1 GB, gradients 0.1 GB, optimiseur 0.2 GB, légendes 12 MB, gardé pour le retour 2.1 GB, calcul 1.7 GB. C’est plus que les 8.0 GB de la carte. Ensemble, ceux-ci peuvent suffire : taille du lot (batch_size) 1 avec accumulation du gradient (gradient_accumulation) 4 épargne 1.9 GB ; rank 8 épargne 0.2 GB. Pour entraîner quand même, réglez « mémoire dépassée (over_memory) » sur go on : ComfyUI garde alors une partie des poids en mémoire centrale, ce qui est lent, ou la carte manque de mémoire.",
    "批次大小（batch_size）, 秩（rank）：这次训练需要的显存超过显卡所有。一张 8.0 GB 的显卡 上的占用：峰值 12.3 GB，其中权重 8.1 GB，适配器 0.1 GB，梯度 0.1 GB，优化器 0.2 GB，标注 12 MB，为反向传播保留 2.1 GB，计算 1.7 GB。这超过了显卡的 8.0 GB。以下各项合起来可能就够：批次大小（batch_size）设为 1，梯度累积（gradient_accumulation）设为 4：省下 1.9 GB；rank 8：省下 0.2 GB。若仍要训练，请把显存不足时（over_memory）设为 go on：这时 ComfyUI 会把一部分权重留在内存中，速度较慢，或者显存耗尽。",
  ],
  [
    "9 pictures at 512, 768 in 2 buckets:\n  512×512: 6\n  768×512: 3\nmade now: 3 latent, 2 mask, 1 text",
    "9 images en 512, 768 dans 2 tailles d’entraînement :\n  512×512: 6\n  768×512: 3\nfait maintenant : latents 3, masques 2, textes 1",
    "9 张图片，分辨率 512, 768，分为 2 个分桶：\n  512×512: 6\n  768×512: 3\n这次制作：3 个 Latent，2 个遮罩，1 条文本",
  ],
  [
    "The cache was damaged or deleted; made anew: 1 latent, 0 mask, 0 text.",
    "Le cache était endommagé ou supprimé ; refait : latents 1, masques 0, textes 0.",
    "缓存曾被损坏或删除；已重新制作：1 个 Latent，0 个遮罩，0 条文本。",
  ],
  [
    "subjects: line 3 should give a weight above 0, got 'anna: 0'. Write for example anna: 2 or anna: 2: a photo of anna.",
    "sujets (subjects) : la ligne 3 devrait donner un poids au-dessus de 0, reçu 'anna: 0'. Écrivez par exemple anna: 2 ou anna: 2: a photo of anna.",
    "主体（subjects）：第 3 行应给出大于 0 的权重，实际为 'anna: 0'。例如写 anna: 2 或 anna: 2: a photo of anna。",
  ],
  [
    "checkpointing: Block is given a Holder (at args). It may hold tensors that cannot be followed when a block is repeated, and their gradient would be lost. Choose checkpointing \"off\", or take away what brings this into the model.",
    "recalcul (checkpointing) : Block reçoit un Holder (à args). Il peut contenir des tenseurs impossibles à suivre quand un bloc est répété, et leur gradient serait perdu. Réglez « recalcul (checkpointing) » sur \"off\", ou retirez ce qui l’apporte dans le modèle.",
    "梯度检查点（checkpointing）：Block 收到了类型为 Holder 的值（在 args）。其中可能有在重复执行块时无法跟踪的张量，它们的梯度会丢失。请把 checkpointing 设为 \"off\"，或移除把它带进模型的东西。",
  ],
  [
    "only-once after 100 steps.",
    "only-once après 100 étapes.",
    "only-once，第 100 步之后。",
  ],
  [
    "Half: nothing was found in 2 of 4 pictures: b.png: nothing found (nothing is left of it after subtract); c.png: nothing found (nothing is left of it after subtract). Change the settings, or set nothing_found to white (learn the whole picture), black (learn nothing of it) or skip (leave it out).",
    "Half : rien n’a été trouvé dans 2 des 4 images : b.png : rien trouvé (il n’en reste rien après subtract) ; c.png : rien trouvé (il n’en reste rien après subtract). Changez les réglages, ou mettez « rien trouvé (nothing_found) » sur white (apprendre toute l’image), black (n’en rien apprendre) ou skip (la laisser de côté).",
    "Half：4 张图片中有 2 个什么也没找到：b.png：什么也没找到（subtract 之后什么也没剩下）；c.png：什么也没找到（subtract 之后什么也没剩下）。请更改设置，或把未找到时（nothing_found）设为 white（整张图片都学习）、black（什么也不学）或 skip（排除）。",
  ],
  [
    "captions: holds half a character at position 0, which no text can. Write it again.",
    "légendes (captions) : contient un demi-caractère à la position 0, ce qu’aucun texte ne peut. Écrivez-le à nouveau.",
    "标注（captions）：在位置 0 处有半个字符，文字中不能有。请重新写。",
  ],
  [
    "1 file (1 .json) may hold captions, but is not read: captions.json. Captions are read from text files beside the pictures and from metadata.jsonl.",
    "1 fichier (1 .json) contient peut-être des légendes, mais n’est pas lu : captions.json. Les légendes se lisent de fichiers texte à côté des images et de metadata.jsonl.",
    "1 个文件（1 .json）可能含有标注，但不会读取：captions.json. 标注从图片旁边的文本文件和 metadata.jsonl 中读取。",
  ],
  [
    "routes: Stable Diffusion 1.5 is a U-Net, which has no tokens for it. Empty it; Cache Dataset with crop \"masked crop\" spends the steps on the masked part instead.",
    "routes : Stable Diffusion 1.5 est un U-Net, qui n’a pas de tokens pour cela. Videz-le ; « Mettre en cache » avec « recadrage (crop) » sur \"masked crop\" consacre plutôt les étapes à la partie masquée.",
    "token 路由（routes）：Stable Diffusion 1.5 是 U-Net，没有可用于此项的 token。请清空此项；改用缓存数据集的 crop \"masked crop\"，即可把计算用在遮罩部分。",
  ],
];

for (const [place, language] of [[1, "fr"], [2, "zh"]]) {
  test(`lines of the server read in ${language} as they should`, () => {
    speak(language);
    for (const line of LINES) assert.equal(told(line[0]), line[place]);
  });
}
